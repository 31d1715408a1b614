//! Errors for people.

use alloc::string::{String, ToString as _};
use core::error::Error;

use crate::safe_text::escaped;

/// An error with all its causes, in one line. A cause that ends what was said already is not said twice: some
/// libraries put it into their own message as well. What names, paths and files bring along is spelled out if it
/// would steer a terminal.
///
/// ```
/// use doors_text::error_chain::in_one_line;
///
/// let error: Box<dyn std::error::Error> = "cannot read \u{1b}[2Jfile".into();
/// assert_eq!(in_one_line(&*error), "cannot read \\u{1b}[2Jfile");
/// ```
#[must_use]
pub fn in_one_line(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    escaped(&text)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{fmt, io};

    use super::*;

    #[derive(Debug)]
    struct Outer {
        message: &'static str,
        cause: io::Error,
    }

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.message)
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.cause)
        }
    }

    #[test]
    fn an_error_is_one_line_whatever_it_quotes() {
        let cause = io::Error::other("no\nsuch \u{1b}[2Jfile");
        let error = Outer { message: "cannot\nconnect", cause };
        assert_eq!(in_one_line(&error), "cannot\\nconnect: no\\nsuch \\u{1b}[2Jfile");
    }

    #[test]
    fn every_cause_is_said_once() {
        for message in ["cannot connect", "cannot connect: no such file"] {
            let error = Outer { message, cause: io::Error::other("no such file") };
            assert_eq!(in_one_line(&error), "cannot connect: no such file");
        }
    }
}
