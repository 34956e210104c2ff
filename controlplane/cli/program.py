"""The program: its table of nouns and verbs. A verb's own help is in its file."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final

import typer

from controlplane.cli.settings import Context, Invocation
from treaty.cli.program import EXIT_CODES, SETTINGS, Command, lazy_group, version_option

EPILOG: Final = f"""{EXIT_CODES}
\b
Example:
  foedus get nations
  foedus rollout status demo-1 --watch
"""

COMMANDS: Final[Mapping[str, Command]] = MappingProxyType(
    {
        "get": Command("get", "get_app", "Show resources of a kind, or one of them."),
        "describe": Command("get", "describe_app", "Show one resource in full, with what it waits for."),
        "apply": Command("apply", "apply_app", "Store the intents of a file."),
        "delete": Command("apply", "delete_app", "Delete what apply stored."),
        "key": Command("key", "app", "Make and show signing keys."),
        "charter": Command("charter", "app", "Write, sign, check and publish the charter."),
        "agent": Command("agent", "app", "Accept and revoke nations' agents."),
        "model": Command("model", "app", "Publish, sign and verify model versions."),
        "policy": Command("policy", "app", "Sign policy bundles; put the treaty's in force."),
        "rollout": Command("rollout", "app", "Bring a model version to nations, in waves."),
        "run": Command("run", "app", "Plan, start and follow federated runs."),
        "audit": Command("audit", "app", "Prove what crossed which border."),
        "config": Command("config", "app", "Contexts: which coordinator, as whom."),
    }
)

app = typer.Typer(
    cls=lazy_group("controlplane.cli.commands", COMMANDS),
    help="Run AI across borders under a treaty: charter, model versions, rollouts, federated runs, the record.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=SETTINGS,
)


def _option(variable: str, metavar: str, help_text: str) -> Any:
    """A flag that may also come from the environment; typer would escape its own note about that."""
    return typer.Option(envvar=variable, show_envvar=False, metavar=metavar, help=f"{help_text} ({variable}).")


@app.callback()
def root(
    ctx: typer.Context,
    coordinator: Annotated[str, _option("FOEDUS_COORDINATOR", "HOST:PORT", "The coordinator's address")] = "",
    cert: Annotated[str, _option("FOEDUS_CERT", "FILE", "Your client certificate")] = "",
    key: Annotated[str, _option("FOEDUS_KEY", "FILE", "Its private key")] = "",
    ca: Annotated[str, _option("FOEDUS_CA", "FILE", "The coordinator's CA")] = "",
    charter: Annotated[str, _option("FOEDUS_CHARTER", "FILE", "The charter to verify by")] = "",
    context: Annotated[str, _option("FOEDUS_CONTEXT", "NAME", "A context of the configuration")] = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the command's trace id.")] = False,
    _version: Annotated[bool, version_option("foedus")] = False,
) -> None:
    flags = Context(coordinator=coordinator, cert=cert, key=key, ca=ca, charter=charter)
    ctx.obj = Invocation(flags=flags, context=context, is_verbose=verbose)


def invocation(ctx: typer.Context) -> Invocation:
    """What the program's own flags said."""
    found = ctx.find_object(Invocation)
    return found if found is not None else Invocation()
