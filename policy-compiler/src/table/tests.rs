//! Precedence and port classes of single tables.
