//! Start, stop, restart, death.
