"""Commands for who works on this project; none of it is installed."""
