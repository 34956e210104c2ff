"""What may be done: typed questions, two authorities, two engines, one decision document.

    questions   what is asked and what the decider observes itself
    registers   the facts that rules look up, each set by its owner only
    engine      the port: an engine answers for one authority, or the answer is no
    embedded    the signed WebAssembly, in process (wasmtime)      opa   the signed Rego, in a real OPA
    archive     bundles as bytes                                   bundle  bundles as something signed
    vectors     what a bundle must answer before it is put in force
    decision    the verdict: both must allow                       decider  the door that the rest of the program uses
    author      from Rego sources to a bundle, with a real OPA

Engines are imported by whoever chooses one, so that asking for a question's digest loads neither wasmtime nor aiohttp.
"""
