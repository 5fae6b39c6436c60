//! What a component says of the tools that have made it, in its `producers` sections. Nobody has checked that it is
//! true.

use wasmparser::{KnownCustom, Parser, Payload};

use crate::escape::escape_untrusted;

/// The most tools that are told.
const MOST_TOOLS: usize = 16;

/// The languages and tools that a component names, in at most so many bytes; `None` if it names none.
#[must_use]
pub fn builder_of(component: &[u8], most: usize) -> Option<String> {
    let mut tools: Vec<String> = Vec::new();
    for payload in Parser::new(0).parse_all(component) {
        // What follows an error cannot be read.
        let Ok(payload) = payload else { break };
        if let Payload::CustomSection(section) = payload
            && let KnownCustom::Producers(fields) = section.as_known()
        {
            for field in fields.into_iter().map_while(Result::ok) {
                let values = field.values.into_iter().map_while(Result::ok);
                for value in values.take(MOST_TOOLS) {
                    let tool = escape_untrusted(format!("{} {}", value.name, value.version).trim());
                    if tools.len() < MOST_TOOLS && !tools.contains(&tool) {
                        tools.push(tool);
                    }
                }
            }
        }
        if tools.len() >= MOST_TOOLS {
            break;
        }
    }
    let mut text = tools.join(", ");
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.truncate(text.trim_end_matches([',', ' ']).len());
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A custom section of an empty module.
    fn module(producers: &[u8]) -> Vec<u8> {
        let name = b"\x09producers";
        let length = u8::try_from(name.len() + producers.len()).expect("a small section");
        [b"\0asm\x01\0\0\0\0", &[length][..], name, producers].concat()
    }

    #[test]
    fn the_tools_of_a_component_are_told_escaped_and_in_so_many_bytes() {
        let tools = b"\x01\x08language\x02\x04Rust\x00\x01C\x033\x1b9";
        assert_eq!(builder_of(&module(tools), 99).as_deref(), Some("Rust, C 3\\u{1b}9"));
        assert_eq!(builder_of(&module(tools), 6).as_deref(), Some("Rust"), "cut");
        assert_eq!(builder_of(&module(b"\x00"), 99), None);
        assert_eq!(builder_of(b"no component", 99), None);
        // A section that promises more than it has.
        assert_eq!(builder_of(&module(b"\x01\x08language\x09\x04Rust\x00"), 99), None);
    }
}
