//! A line of JSON with bytes behind it: how a node and the processes that it starts talk.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The line of a value, with its end.
pub(crate) fn to_line(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// The value in the first line, and what is behind it.
pub(crate) fn split<T: DeserializeOwned>(bytes: &[u8]) -> Option<(T, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (line, rest) = bytes.split_at(end);
    Some((serde_json::from_slice(line).ok()?, rest.get(1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_behind_the_line_is_left_as_it_is() {
        let mut bytes = to_line(&("limits", 7)).expect("JSON");
        bytes.extend(b"\n{}\n");
        assert_eq!(split::<(String, u32)>(&bytes), Some((("limits".to_owned(), 7), &b"\n{}\n"[..])));
        assert_eq!(split::<(String, u32)>(b"[\"no end\",7]"), None);
        assert_eq!(split::<(String, u32)>(b"no JSON\nrest"), None);
    }
}
