"""The store's one adapter, on SQLAlchemy Core: the only place that imports SQLAlchemy.

`tables` says what is kept, `engine` how a database is opened, `runner` who may touch it when, `errors` what a failure
means; the other modules implement one noun of the port each, all by SQL that both databases speak.
"""
