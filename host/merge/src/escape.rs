//! Escapes untrusted text for terminals, logs and error messages.

/// The most characters of an untrusted text that are shown.
const MAX_CHARS: usize = 400;

/// The first 400 characters of a text, with everything escaped that a terminal would interpret or a reader could not
/// see: control characters (and so ANSI sequences), bidirectional marks, and characters without width.
#[must_use]
pub fn escape_untrusted(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(MAX_CHARS));
    for (count, char) in text.chars().enumerate() {
        if count == MAX_CHARS {
            shown.push_str(&format!("… ({} bytes)", text.len()));
            break;
        }
        if is_printable(char) { shown.push(char) } else { shown.extend(char.escape_unicode()) }
    }
    shown
}

/// Whether a character may be shown unescaped.
#[must_use]
pub fn is_printable(char: char) -> bool {
    let hidden = matches!(char,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}');
    !char.is_control() && !hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_on_is_escaped() {
        assert_eq!(escape_untrusted("käse 漢字 🦀"), "käse 漢字 🦀");
        assert_eq!(escape_untrusted("a\u{1b}[31mred\r\n\t\0"), "a\\u{1b}[31mred\\u{d}\\u{a}\\u{9}\\u{0}");
        assert_eq!(
            escape_untrusted("\u{9b}2J \u{202e}txt\u{2066}.exe\u{200b}\u{feff}"),
            "\\u{9b}2J \\u{202e}txt\\u{2066}.exe\\u{200b}\\u{feff}"
        );
    }

    #[test]
    fn it_is_short_and_says_how_long_it_was() {
        let shown = escape_untrusted(&"x".repeat(100_000));
        assert_eq!(shown, format!("{}… (100000 bytes)", "x".repeat(MAX_CHARS)));
        assert_eq!(escape_untrusted(&"é".repeat(MAX_CHARS)), "é".repeat(MAX_CHARS));
    }
}
