# METADATA
# title: MOD-004 not older
# description: >-
#   By semantic version not older than what runs, unless it is the fallback that the nation consented to.
package foedus.treaty.checks.model.not_older

code := "MOD-004"

points := {"model.admit", "rollout.deploy"}

reads := {"model.running_version"}

after := {"MOD-001"}

passes if input.model.running_version == "none"

passes if {
	semver.is_valid(input.model.version)
	semver.is_valid(input.model.running_version)
	semver.compare(input.model.version, input.model.running_version) >= 0
}

passes if {
	is_string(input.model.running_version)
	input.model.version == input.model.fallback_version
}
