//! The command line: arguments, exit codes, tables. No domain logic.
