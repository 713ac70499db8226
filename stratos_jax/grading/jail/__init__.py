"""The code that runs inside the sandbox: a fork server and what it runs. Imports only the standard library.

These files run as plain scripts of a bare interpreter that has no `stratos_jax`; they import each other by bare name.
"""
