# METADATA
# title: Samples for the tests beside the rules
# description: The complete, allowed questions and the registers of vectors/data.json, and changes to them.
package foedus.treaty.samples

import data.foedus.treaty
import data.vectors

registers := object.union_n([
	treaty.registers,
	vectors.registers.charter,
	vectors.registers.record,
	vectors.registers.nation,
])

question(name) := vectors.bases[name]

changed(name, path, value) := json.patch(question(name), [{"op": "replace", "path": path, "value": value}])
