//! Rust source without what is not product code: comments, literals, tests.
//!
//! A scan, not a parser: it knows just enough of the lexical grammar that a brace in a string or a word in a comment
//! misleads no rule. Every function keeps the line structure, so that a line number found in the result is one of the
//! file.

/// `source` with comments and the contents of string and character literals blanked. Characters outside ASCII become
/// `?`.
#[must_use]
pub fn code_only(source: &str) -> String {
    let mut masker = Masker { source: source.as_bytes(), at: 0, out: String::with_capacity(source.len()) };
    masker.run();
    masker.out
}

/// `code` (from [`code_only`]) with every item under `#[cfg(test)]` blanked, and blank altogether under
/// `#![cfg(test)]`.
#[must_use]
pub fn without_tests(code: &str) -> String {
    if code.contains("#![cfg(test)]") {
        return blank(code);
    }
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = test_attribute(rest) {
        let end = start + item_length(&rest[start..]);
        out.push_str(&rest[..start]);
        out.push_str(&blank(&rest[start..end]));
        rest = &rest[end..];
    }
    out + rest
}

/// The modules that `code` (from [`code_only`]) declares in files of their own and only for tests:
/// `#[cfg(test)] mod name;`.
#[must_use]
pub fn test_modules(code: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = code;
    while let Some(start) = test_attribute(rest) {
        let item = &rest[start..start + item_length(&rest[start..])];
        let words: Vec<&str> = item.split_whitespace().collect();
        let name = words.iter().position(|word| *word == "mod").and_then(|at| words.get(at + 1));
        names.extend(name.and_then(|name| name.strip_suffix(';')));
        rest = &rest[start + item.len()..];
    }
    names
}

/// The numbers, from 1, of the lines of `code` for which `wanted` holds.
pub fn lines_where<'a>(
    code: &'a str,
    mut wanted: impl FnMut(&'a str) -> bool + 'a,
) -> impl Iterator<Item = usize> + 'a {
    code.lines().enumerate().filter(move |(_, line)| wanted(line)).map(|(index, _)| index + 1)
}

/// Whether `line` holds `word` with no letter, digit or underscore on either side.
#[must_use]
pub fn has_word(line: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(part_of_name)
            && !line[at + word.len()..].chars().next().is_some_and(part_of_name)
    })
}

fn test_attribute(code: &str) -> Option<usize> {
    let starts = ["#[cfg(test)]", "#[cfg(all(test,"].map(|attribute| code.find(attribute));
    starts.into_iter().flatten().min()
}

/// The length of the item at the start of `code`, its attributes included: up to the matching brace, or to a semicolon
/// outside brackets.
fn item_length(code: &str) -> usize {
    let mut brackets = 0_usize;
    let mut braces = 0_usize;
    for (at, byte) in code.bytes().enumerate() {
        match byte {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets = brackets.saturating_sub(1),
            b'{' => braces += 1,
            b'}' if braces <= 1 => return at + 1,
            b'}' => braces -= 1,
            b';' if brackets == 0 && braces == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

fn blank(code: &str) -> String {
    code.chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect()
}

struct Masker<'a> {
    source: &'a [u8],
    at: usize,
    out: String,
}

impl Masker<'_> {
    fn run(&mut self) {
        while let Some(byte) = self.peek(0) {
            match byte {
                b'/' if self.peek(1) == Some(b'/') => self.hide_until(|rest| rest.starts_with(b"\n")),
                b'/' if self.peek(1) == Some(b'*') => self.block_comment(),
                b'"' => self.string(),
                b'r' if self.raw_string_hashes().is_some() => self.raw_string(),
                b'\'' => self.quote(),
                _ => self.keep(1),
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.source.get(self.at + ahead).copied()
    }

    fn rest(&self) -> &[u8] {
        self.source.get(self.at..).unwrap_or_default()
    }

    fn keep(&mut self, count: usize) {
        for _ in 0..count {
            let Some(byte) = self.peek(0) else { return };
            self.out.push(if byte.is_ascii() { char::from(byte) } else { '?' });
            self.at += 1;
        }
    }

    fn hide(&mut self, count: usize) {
        for _ in 0..count {
            let Some(byte) = self.peek(0) else { return };
            self.out.push(if byte == b'\n' { '\n' } else { ' ' });
            self.at += 1;
        }
    }

    fn hide_until(&mut self, end: impl Fn(&[u8]) -> bool) {
        while !self.rest().is_empty() && !end(self.rest()) {
            self.hide(1);
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        loop {
            if self.rest().starts_with(b"/*") {
                depth += 1;
                self.hide(2);
            } else if self.rest().starts_with(b"*/") {
                depth -= 1;
                self.hide(2);
            } else {
                self.hide(1);
            }
            if depth == 0 || self.rest().is_empty() {
                return;
            }
        }
    }

    fn string(&mut self) {
        self.keep(1);
        while let Some(byte) = self.peek(0) {
            match byte {
                b'"' => return self.keep(1),
                b'\\' => self.hide(2),
                _ => self.hide(1),
            }
        }
    }

    /// How many `#` the raw string literal that starts here has; `None` when this `r` starts none (a name, a raw
    /// identifier).
    fn raw_string_hashes(&self) -> Option<usize> {
        let name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let mut before = self.source[..self.at].iter().rev();
        let prefixed = match before.next() {
            Some(b'b' | b'c') => before.next().is_some_and(name),
            Some(byte) => name(byte),
            None => false,
        };
        let hashes = self.rest()[1..].iter().take_while(|byte| **byte == b'#').count();
        (!prefixed && self.peek(1 + hashes) == Some(b'"')).then_some(hashes)
    }

    fn raw_string(&mut self) {
        let hashes = self.raw_string_hashes().unwrap_or(0);
        let end: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
        self.keep(2 + hashes);
        self.hide_until(|rest| rest.starts_with(&end));
        self.keep(end.len());
    }

    /// A character literal, or the quote of a lifetime or label.
    fn quote(&mut self) {
        self.keep(1);
        let width = match self.peek(0) {
            Some(b'\\') => 2,
            Some(lead) if lead >= 0xF0 => 4,
            Some(lead) if lead >= 0xE0 => 3,
            Some(lead) if lead >= 0xC0 => 2,
            _ => 1,
        };
        if self.peek(0) == Some(b'\\') || self.peek(width) == Some(b'\'') {
            self.hide(width);
            self.hide_until(|rest| rest.starts_with(b"'"));
            self.keep(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_code_stays() {
        let code = code_only(
            "let a = \"x // { \\\" y\"; // tail {\n/* { /* nested */ } */ b('{', '\\'', 'é', r#\"raw \" {\"#, \
                br\"{\");\n",
        );
        assert!(!code.contains('{') && !code.contains("tail") && !code.contains("nested") && !code.contains("raw"));
        assert!(code.contains("let a = \"") && code.contains("b('") && code.ends_with(");\n"));
        assert_eq!(code.lines().count(), 2);
    }

    #[test]
    fn lifetimes_and_raw_identifiers_do_not_open_a_literal() {
        let source = "fn f<'a>(r: &'a str, r#type: u8) { 'outer: loop { break 'outer; } }";
        assert_eq!(code_only(source), source);
    }

    #[test]
    fn items_for_tests_are_blanked_and_the_code_after_them_stays() {
        let code = "fn a() {}\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n  fn b() { c([1; 2]) }\n}\n#[cfg(test)]\nextern \
            crate std;\nfn d() {}\n";
        let product = without_tests(code);
        assert!(product.contains("fn a()") && product.contains("fn d()"));
        assert!(!product.contains("fn b()") && !product.contains("extern crate"));
        assert_eq!(product.lines().count(), code.lines().count());
        assert_eq!(without_tests("#![cfg(test)]\nfn a() {}").trim(), "");
    }

    #[test]
    fn test_modules_in_files_of_their_own_are_named() {
        let code = "mod a;\n#[cfg(test)]\nmod tests;\n#[cfg(test)]\npub(crate) mod model;\n#[cfg(test)]\nmod inline { \
            mod x; }\n";
        assert_eq!(test_modules(code), ["tests", "model"]);
    }

    #[test]
    fn words_are_whole_words() {
        assert!(has_word("use std::time::Instant;", "Instant"));
        assert!(!has_word("Instantly", "Instant") && !has_word("my_Instant", "Instant"));
        assert_eq!(lines_where("a\nb\na", |line| has_word(line, "a")).collect::<Vec<_>>(), [1, 3]);
    }
}
