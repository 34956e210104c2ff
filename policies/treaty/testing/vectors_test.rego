# METADATA
# title: The table vectors under `opa test`
# description: Each vector of vectors/data.json, as Foedus runs them on the engine in use before a bundle is put in force.
package foedus.treaty.vectors_test

import data.foedus.treaty
import data.foedus.treaty.samples
import data.vectors

question(vector) := json.patch(remaining(vector), [
{"op": "add", "path": pointer(path), "value": value} |
	some path, value in vector.set
])

remaining(vector) := json.remove(vectors.bases[vector.base], [pointer(path) | some path in vector.delete])

pointer(path) := replace(path, ".", "/")

answered contains vector.name if {
	some vector in vectors.vectors
	answer := treaty.decision with input as question(vector) with data.foedus.registers as samples.registers
	answer.verdict == vector.expect.verdict
	answer.failed == vector.expect.codes
}

test_each_vector_is_decided_as_expected if {
	unexpected := {vector.name | some vector in vectors.vectors} - answered
	print(unexpected)
	unexpected == set()
}
