"""`foedus-agent`: what a nation's admin types.

`program` holds the table of verbs and loads each when it is used; `commands` holds one file per noun; `__main__` turns
errors into one line and an exit code. Nothing here talks to a running agent: both meet in the journal.
"""
