"""The whole main job on one machine: five nations, a real model, real text. Run it with `python -m examples.demo`.

settings.py     what is played: nations, purposes, waves, recipe
cast.py         who plays: directories, keys, programs, ports
programs.py     runs the real command-line programs and stops every one of them
telling.py      one line per step as it happens
steps_*.py      the acts, in the order of `__main__`
relay.py        counts the bytes over each border, outside the agents
canary.py       looks for planted sentences in everything outside the nations
report.py       report.json and report.html
"""
