"""The agent's core: state, journal, border, session, enrolment, and the program around them."""
