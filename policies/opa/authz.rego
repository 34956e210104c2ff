# METADATA
# title: Who may talk to the OPA beside an agent or a coordinator
# description: >-
#   The bearer of the token whose SHA-256 the process was started with, and nobody else; anyone may ask whether it lives.
#   Start it with `opa run --server --addr 127.0.0.1:8181 --authentication=token --authorization=basic authz.rego`.
package system.authz

default allow := false

allow if {
	expected := opa.runtime().env.FOEDUS_OPA_TOKEN_SHA256
	count(expected) == 64
	crypto.sha256(input.identity) == expected
}

allow if {
	input.method == "GET"
	input.path == ["health"]
}
