//! How errors, and text that others wrote, are shown to people: in one line, and without steering a terminal.
//!
//! | module          | what it does                                                    |
//! |-----------------|-----------------------------------------------------------------|
//! | [`safe_text`]   | spells out what would steer a terminal, or not be seen          |
//! | [`wrap`]        | text on lines that fit                                          |
//! | [`error_chain`] | an error with all its causes, in one line                       |

#![no_std]

extern crate alloc;

pub mod error_chain;
pub mod safe_text;
pub mod wrap;
