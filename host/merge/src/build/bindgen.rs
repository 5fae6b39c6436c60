//! Takes what wasm-bindgen leaves out of a core module.
//!
//! Libraries that also run in browsers reach for random numbers or a clock through wasm-bindgen, often in code that a
//! plugin never runs. It leaves imports behind all the same, for a tool of its own that a component does not need. A
//! plugin has no imports, so each of them becomes a function that traps.

use wasmparser::{BinaryReader, ImportSectionReader, Imports, TypeRef};

use crate::coverage::bytes::{HEADER, prepended, section, sections, unsigned};

/// How the modules of its imports begin.
const MODULES: &str = "__wbindgen_";
/// The ids of the sections of imports, functions and code.
const IMPORTS: u8 = 2;
const FUNCTIONS: u8 = 3;
const CODE: u8 = 10;
/// The body of a function that traps: its length, no locals, `unreachable`, `end`.
const TRAP: [u8; 4] = [3, 0, 0x00, 0x0b];

/// The module without its imports. None if it has no imports, or others than functions of wasm-bindgen.
///
/// Functions are numbered from the imported ones on. What stands in their place comes first, so every other one keeps
/// its number.
pub(super) fn without_imports(module: &[u8]) -> Option<Vec<u8>> {
    let sections = sections(module)?;
    let (_, imports) = sections.iter().find(|(id, _)| *id == IMPORTS)?;
    let types: Vec<u32> = functions(module.get(imports.clone())?)?.into_iter().map(|(of, _)| of).collect();
    let count = types.len() as u64;
    let mut listed = Vec::new();
    types.iter().for_each(|of| unsigned(u64::from(*of), &mut listed));
    let mut out = module.get(..HEADER)?.to_vec();
    for (id, content) in &sections {
        let content = module.get(content.clone())?;
        match *id {
            IMPORTS => {}
            FUNCTIONS => section(*id, &prepended(content, count, &listed)?, &mut out),
            CODE => section(*id, &prepended(content, count, &TRAP.repeat(types.len()))?, &mut out),
            _ => section(*id, content, &mut out),
        }
    }
    Some(out)
}

/// The names of the imports that [`without_imports`] takes out of a module.
pub(super) fn names(module: &[u8]) -> Vec<String> {
    let sections = sections(module).unwrap_or_default();
    let imports = sections.iter().find(|(id, _)| *id == IMPORTS).and_then(|(_, range)| module.get(range.clone()));
    let functions = imports.and_then(functions).unwrap_or_default();
    functions.into_iter().map(|(_, name)| name.to_owned()).collect()
}

/// The imported functions: their types and names. None if there are none, or other imports than those of wasm-bindgen.
fn functions(imports: &[u8]) -> Option<Vec<(u32, &str)>> {
    let mut functions = Vec::new();
    for imports in ImportSectionReader::new(BinaryReader::new(imports, 0)).ok()? {
        let Ok(Imports::Single(_, import)) = imports else { return None };
        match import.ty {
            TypeRef::Func(of) if import.module.starts_with(MODULES) => functions.push((of, import.name)),
            _ => return None,
        }
    }
    (!functions.is_empty()).then_some(functions)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module that imports two functions of a module, and exports one that calls a function of its own.
    fn module(from: &str, kind: &[u8]) -> Vec<u8> {
        let mut import = vec![2];
        for name in ["describe", "drop"] {
            import.push(from.len() as u8);
            import.extend_from_slice(from.as_bytes());
            import.push(name.len() as u8);
            import.extend_from_slice(name.as_bytes());
            import.extend_from_slice(kind);
        }
        let mut out = b"\0asm\x01\0\0\0".to_vec();
        // Types: (i32) -> (), () -> (i32).
        section(1, &[2, 0x60, 1, 0x7f, 0, 0x60, 0, 1, 0x7f], &mut out);
        section(IMPORTS, &import, &mut out);
        section(FUNCTIONS, &[2, 1, 1], &mut out);
        section(7, &[1, 2, b'g', b'o', 0, 3], &mut out);
        // The first of its own answers 42; the second, function 3, calls function 2.
        section(CODE, &[2, 4, 0, 0x41, 42, 0x0b, 4, 0, 0x10, 2, 0x0b], &mut out);
        out
    }

    #[test]
    fn imports_of_wasm_bindgen_become_traps_and_every_function_keeps_its_number() {
        let module = module("__wbindgen_placeholder__", &[0, 0]);
        assert_eq!(names(&module), ["describe", "drop"]);
        let bare = without_imports(&module).expect("it has such imports");
        wasmparser::validate(&bare).expect("a module");
        let found = sections(&bare).expect("sections");
        let content = |id: u8| found.iter().find(|(of, _)| *of == id).map(|(_, range)| &bare[range.clone()]);
        assert_eq!(content(IMPORTS), None);
        assert_eq!(content(FUNCTIONS), Some(&[4, 0, 0, 1, 1][..]));
        assert_eq!(content(7), Some(&[1, 2, b'g', b'o', 0, 3][..]), "exports are as they were");
        assert!(content(CODE).expect("code").starts_with(&[4, 3, 0, 0x00, 0x0b, 3, 0, 0x00, 0x0b, 4]));
    }

    #[test]
    fn other_modules_stay_as_they_are() {
        assert_eq!(without_imports(&module("env", &[0, 0])), None);
        assert!(names(&module("env", &[0, 0])).is_empty() && names(b"text").is_empty());
        // A global, which a function cannot stand in for.
        assert_eq!(without_imports(&module("__wbindgen_placeholder__", &[3, 0x7f, 0])), None);
        assert_eq!(without_imports(b"\0asm\x01\0\0\0"), None);
        assert_eq!(without_imports(b"text"), None);
    }
}
