//! How knocks are heard.
