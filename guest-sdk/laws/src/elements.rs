//! Finds the elements of a JSON text, so that the shrinker can leave some out.

use std::ops::Range;

/// A list or an object that is open: where its first element starts, and its commas so far.
struct Open {
    first: usize,
    commas: Vec<usize>,
}

impl Open {
    /// The ranges of a list that ends here: its last element, and of a longer list each half.
    fn close(self, at: usize) -> Vec<Range<usize>> {
        let last = self.commas.last().copied().unwrap_or(self.first)..at;
        let mut ranges = if last.is_empty() { Vec::new() } else { vec![last] };
        if self.commas.len() >= 3 {
            let middle = self.commas[self.commas.len() / 2];
            ranges.extend([middle..at, self.first..middle + 1]);
        }
        ranges
    }
}

/// The bytes of each list element and object member, and of the halves of long ones, with one of the commas beside
/// them: a text without these bytes is JSON again. The longest come first. Empty for what is no JSON list or object.
pub(crate) fn elements(json: &[u8]) -> Vec<Range<usize>> {
    let (mut found, mut open): (Vec<Range<usize>>, Vec<Open>) = (Vec::new(), Vec::new());
    let (mut in_text, mut escaped) = (false, false);
    for (at, byte) in json.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'[' | b'{' => open.push(Open { first: at + 1, commas: Vec::new() }),
            b',' => {
                let Some(list) = open.last_mut() else { return Vec::new() };
                let start = list.commas.last().map_or(list.first, |comma| comma + 1);
                found.push(start..at + 1);
                list.commas.push(at);
            }
            b']' | b'}' => {
                let Some(list) = open.pop() else { return Vec::new() };
                found.extend(list.close(at));
            }
            _ => {}
        }
    }
    if in_text || !open.is_empty() {
        return Vec::new();
    }
    found.sort_by_key(|range| std::cmp::Reverse(range.len()));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_each(json: &str) -> Vec<String> {
        let cut = |range: Range<usize>| format!("{}{}", &json[..range.start], &json[range.end..]);
        elements(json.as_bytes()).into_iter().map(cut).collect()
    }

    #[test]
    fn each_element_can_be_left_out() {
        assert_eq!(without_each(r#"["a,]",2]"#), ["[2]", r#"["a,]"]"#]);
        assert_eq!(without_each(r#"{"a":{"b":1},"c":[]}"#), [r#"{"c":[]}"#, r#"{"a":{"b":1}}"#, r#"{"a":{},"c":[]}"#]);
        assert_eq!(without_each("[1]"), ["[]"]);
        let long = without_each("[1,2,3,4]");
        assert_eq!(long[..2], ["[1,2]", "[3,4]"], "halves come first");
        assert_eq!(long.len(), 6);
    }

    #[test]
    fn what_is_no_json_has_none() {
        for bad in ["", "17", "]", "[1,2", "1,2", "[\"a]", "}{"] {
            assert_eq!(without_each(bad), Vec::<String>::new(), "{bad}");
        }
    }
}
