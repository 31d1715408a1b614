//! firewalld, over D-Bus.

pub(crate) mod bus;
