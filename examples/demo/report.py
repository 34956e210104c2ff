"""report.json, for programs, and report.html, for people: what happened, in figures, and nothing that did not.

The page is one file: its plots are inline SVG (examples.demo.plots), it loads nothing and runs no script.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any, Final

from examples.demo.findings import Findings

STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24 }
h1 { margin-bottom: 0 } h2 { margin-top: 2.5rem }
table { border-collapse: collapse; margin: 1rem 0 } th, td { text-align: left; padding: .25rem .9rem .25rem 0 }
th { border-bottom: 2px solid #1b1f24 } td { border-bottom: 1px solid #d0d7de; font-variant-numeric: tabular-nums }
td.number, th.number { text-align: right } code { font-size: .85em } svg { max-width: 100%; height: auto }
@media (prefers-color-scheme: dark) { body { background: #fff } }
"""


SHORT_DIGEST: Final = len("sha256:") + 16


def document(findings: Findings) -> dict[str, Any]:
    """What report.json says."""
    nations = {
        code: {
            "records": found.records,
            "heldout_perplexity": found.heldout_perplexity,
            "bytes_out": found.bytes_out,
            "bytes_in": found.bytes_in,
        }
        for code, found in findings.nations.items()
    }
    return {
        "seconds": findings.seconds,
        "nations": nations,
        "versions": [asdict(version) for version in findings.versions],
        "refusals": [{**asdict(refusal), "codes": list(refusal.codes)} for refusal in findings.refusals],
        "blocked": [asdict(blocked) for blocked in findings.blocked],
        "open_channels": [asdict(channel) for channel in findings.open_channels],
        "rollback": asdict(findings.rollback) if findings.rollback else None,
        "log": {"size": findings.log_size, "verified": findings.is_log_verified},
        "canaries": {"planted": findings.canaries_planted, "found_outside": findings.canaries_found_outside},
    }


def write(findings: Findings, folder: Path) -> tuple[Path, Path]:
    """Write both reports into `folder`; their paths, the page first."""
    page_path, json_path = folder / "report.html", folder / "report.json"
    json_path.write_text(json.dumps(document(findings), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    page_path.write_text(page(findings), encoding="utf-8")
    return page_path, json_path


def page(findings: Findings) -> str:
    """The whole page."""
    from examples.demo import plots

    sections = [
        "<h1>A model crosses five borders and comes back better</h1>",
        "<p>No sentence of the data does. Every figure here was measured in this run.</p>",
        "<h2>Held-out perplexity by nation and round</h2>",
        plots.perplexity({code: found.heldout_perplexity for code, found in findings.nations.items()}),
        _perplexities(findings),
        "<h2>What crossed each border</h2>",
        plots.bytes_by_class({code: found.bytes_out for code, found in findings.nations.items()}),
        _borders(findings),
        _classes(findings),
        _canaries(findings),
        "<h2>Versions</h2>",
        _versions(findings),
        "<h2>What was refused</h2>",
        _table(
            ("nation", "decision point", "codes"),
            ((r.nation, r.decision_point, ", ".join(r.codes)) for r in findings.refusals),
        ),
        _rollback(findings),
        "<h2>Ways out that a hostile trainer tried</h2>",
        _table(("channel", "stopped with"), ((b.channel, b.code) for b in findings.blocked)),
        "<p>What stays open, and how wide it is; only noise narrows it, and this version adds none:</p>",
        _table(
            ("channel", "bits a round"), ((c.channel, f"{c.bits_per_round:,}") for c in findings.open_channels), (1,)
        ),
        "<h2>The timeline</h2>",
        plots.timeline(findings.timeline),
    ]
    body = "\n".join(sections)
    head = f'<meta charset="utf-8"><title>Foedus: the main job</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _perplexities(findings: Findings) -> str:
    rows = []
    for code, found in findings.nations.items():
        values = found.heldout_perplexity
        gain = f"{values[-1] / values[0]:.2f}" if len(values) > 1 else "–"
        rows.append((code, f"{found.records:,}", *(f"{value:.1f}" for value in values), gain))
    return _table(("nation", "records", "before", "round 1", "round 2", "after ÷ before"), rows, range(1, 6))


def _borders(findings: Findings) -> str:
    rows = [
        (code, f"{sum(found.bytes_out.values()):,}", f"{found.relay_bytes_out:,}", f"{found.bytes_in:,}")
        for code, found in findings.nations.items()
    ]
    heads = ("nation", "bytes out by its tallies", "bytes out at the relay", "bytes in at the relay")
    crossed = "not audited" if findings.raw_records is None else f"{findings.raw_records} by the audit of the record"
    note = f"<p>The relay counts what TLS and HTTP/2 add too. Raw records that crossed: {crossed}.</p>"
    return _table(heads, rows, range(1, 4)) + note


def _classes(findings: Findings) -> str:
    """Bytes out by class and nation, the largest class first."""
    nations = findings.nations
    sums = {name: 0 for found in nations.values() for name in found.bytes_out}
    for found in nations.values():
        for name, size in found.bytes_out.items():
            sums[name] += size
    ordered = sorted(sums, key=lambda name: (-sums[name], name))
    rows = ((name, *(f"{found.bytes_out.get(name, 0):,}" for found in nations.values())) for name in ordered)
    return _table(("class, bytes out", *nations), rows, range(1, len(nations) + 1))


def _canaries(findings: Findings) -> str:
    verdict = "verified" if findings.is_log_verified else "NOT verified"
    return (
        f"<p>{findings.canaries_planted} canary sentences were planted, {findings.canaries_found_outside} found"
        f" outside. The coordinator's log has {findings.log_size} entries and is {verdict}.</p>"
    )


def _versions(findings: Findings) -> str:
    rows = ((v.name, _short(v.digest), f"{v.bytes:,}", f"{v.bytes_transferred:,}") for v in findings.versions)
    return _table(("version", "digest", "bytes", "bytes in over one border"), rows, (2, 3))


def _short(digest: str) -> str:
    """Enough of it to tell versions apart; report.json has the whole."""
    return f"{digest[:SHORT_DIGEST]}…" if len(digest) > SHORT_DIGEST else digest


def _rollback(findings: Findings) -> str:
    found = findings.rollback
    if found is None:
        return ""
    text = f"{found.version} failed in wave {found.wave} ({found.reason}) and was taken back; no later wave saw it."
    return f"<p>{escape(text)}</p>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    right = set(numbers)

    def cells(tag: str, texts: Sequence[str]) -> str:
        marked = (f"<{tag}{' class=number' if i in right else ''}>{escape(t)}</{tag}>" for i, t in enumerate(texts))
        return f"<tr>{''.join(marked)}</tr>"

    body = "\n".join(cells("td", row) for row in rows)
    return f"<table>\n{cells('th', heads)}\n{body}\n</table>"
