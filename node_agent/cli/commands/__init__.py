"""One file per noun of `foedus-agent`; each imports what it needs inside its commands."""
