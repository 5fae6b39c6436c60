//! JSON that is written, with its members in the order in which they are given.

use std::fmt;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Json {
    Number(u32),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(&'static str, Json)>),
}

impl Json {
    /// A text.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, depth: usize| write!(f, "\n{}", "  ".repeat(depth));
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => quote(f, text),
            Self::List(parts) if parts.is_empty() => f.write_str("[]"),
            Self::List(parts) => {
                for (at, part) in parts.iter().enumerate() {
                    f.write_str(if at == 0 { "[" } else { "," })?;
                    line(f, depth + 1)?;
                    part.write(f, depth + 1)?;
                }
                line(f, depth)?;
                f.write_str("]")
            }
            Self::Object(members) => {
                for (at, (name, value)) in members.iter().enumerate() {
                    f.write_str(if at == 0 { "{" } else { "," })?;
                    line(f, depth + 1)?;
                    quote(f, name)?;
                    f.write_str(": ")?;
                    value.write(f, depth + 1)?;
                }
                line(f, depth)?;
                f.write_str("}")
            }
        }
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

fn quote(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            c if c < ' ' => write!(f, "\\u{:04x}", u32::from(c))?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_in_their_order_and_quoted() {
        let text = Json::text("a \"b\" \\ \n ä");
        let value = Json::Object(vec![("z", Json::List(vec![Json::Number(1), text])), ("a", Json::List(Vec::new()))]);
        let expected = "{\n  \"z\": [\n    1,\n    \"a \\\"b\\\" \\\\ \\u000a ä\"\n  ],\n  \"a\": []\n}";
        assert_eq!(value.to_string(), expected);
    }
}
