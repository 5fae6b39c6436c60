//! A strict JSON reader: `serde_json::from_slice` without ambiguous input.
//!
//! Two replicas, or a replica and a client, must read the same value from the same bytes. JSON parsers differ: some
//! take the first of two members with one name and others the last, and some round large numbers. This reader accepts
//! I-JSON (RFC 7493) with whole numbers. It refuses
//!
//! - duplicate names in one object, at any depth, also when they are spelled with escapes,
//! - numbers with a fraction or an exponent, `-0`, and whole numbers beyond ±2^53; write such numbers as text or in
//!   smaller units,
//! - an array where a `struct` is expected, which serde would read as the fields in order,
//! - and, as `serde_json` does: lone surrogates, invalid UTF-8, NaN and infinities, leading zeros, nesting deeper than
//!   128, and bytes after the value.
//!
//! ```
//! use rejoin_guest::json;
//! use std::collections::BTreeMap;
//!
//! assert!(json::from_slice::<BTreeMap<String, u64>>(br#"{"a":1,"b":2}"#).is_ok());
//! let twice = json::from_slice::<BTreeMap<String, u64>>(br#"{"a":1,"\u0061":2}"#);
//! assert!(twice.expect_err("which one is it?").to_string().contains("the name \"a\" comes twice"));
//! ```

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};

/// The largest whole number that every JSON reader represents exactly, 2^53.
pub const MAX_NUMBER: u64 = 1 << 53;

/// Why a value is refused, with the line and column.
pub type Error = serde_json::Error;

/// What cannot be read is malformed: `?` turns one into the other.
impl From<Error> for crate::Fault {
    fn from(_: Error) -> Self {
        Self::Malformed
    }
}

/// Reads a value. A map whose keys are not text is refused.
///
/// # Errors
/// [`Error`] if the bytes are not JSON, do not fit `T`, or are ambiguous.
pub fn from_slice<T: DeserializeOwned>(json: &[u8]) -> Result<T, Error> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let value = T::deserialize(Strict(&mut reader))?;
    reader.end()?;
    Ok(value)
}

/// Makes a deserializer strict, and a seed for the values inside of it.
struct Strict<T>(T);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(Guard(visitor))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_option(Guard(visitor))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(Guard(visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_enum(name, variants, Guard(visitor))
    }

    // JSON is self-describing. Ignored values are read as well, so that they are checked like the others.
    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map
        identifier ignored_any
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Strict<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Strict(reader))
    }
}

/// Checks a value before it passes the value to its visitor.
struct Guard<V>(V);

fn refuse<T, E: serde::de::Error>(number: Unexpected<'_>) -> Result<T, E> {
    Err(E::invalid_value(number, &"a whole number of at most 2^53, without an exponent"))
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Guard<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<V::Value, E> {
        self.0.visit_bool(value)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<V::Value, E> {
        if value.unsigned_abs() > MAX_NUMBER { refuse(Unexpected::Signed(value)) } else { self.0.visit_i64(value) }
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<V::Value, E> {
        if value > MAX_NUMBER { refuse(Unexpected::Unsigned(value)) } else { self.0.visit_u64(value) }
    }

    /// serde_json reads `-0`, numbers with an exponent and whole numbers of more than 64 bits as floats.
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<V::Value, E> {
        refuse(Unexpected::Float(value))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<V::Value, E> {
        self.0.visit_str(text)
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<V::Value, E> {
        self.0.visit_borrowed_str(text)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, reader: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Strict(reader))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Strict(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Members { members, names: Names::default() })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(Strict(variant))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Strict(seed))
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Strict<A> {
    type Error = A::Error;
    type Variant = Strict<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        self.0.variant_seed(seed).map(|(value, content)| (value, Strict(content)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.0.newtype_variant_seed(Strict(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(len, Guard(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        // Read as any content: serde_json's own method would accept an array in place of the fields.
        self.0.newtype_variant_seed(Fields { fields, visitor })
    }
}

/// The content of a struct variant.
struct Fields<V> {
    fields: &'static [&'static str],
    visitor: V,
}

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Fields<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<V::Value, D::Error> {
        Strict(reader).deserialize_struct("", self.fields, self.visitor)
    }
}

/// The members of an object, with the names read so far.
struct Members<'de, A> {
    members: A,
    names: Names<'de>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Members<'de, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let Some(name) = self.members.next_key_seed(Name)? else { return Ok(None) };
        if !self.names.insert(name.clone()) {
            return Err(A::Error::custom(format_args!("the name {name:?} comes twice in one object")));
        }
        seed.deserialize(name.into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.members.next_value_seed(Strict(seed))
    }
}

/// The name of a member. One without escapes is borrowed from the input.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Cow<'de, str>, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, name: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(name.into())
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Cow<'de, str>, E> {
        Ok(name.to_owned().into())
    }
}

/// The names read so far. While they are in order, as in canonical JSON, comparing with the last one is enough.
#[derive(Default)]
struct Names<'de> {
    sorted: Vec<Cow<'de, str>>,
    /// The names that came out of order.
    others: BTreeSet<Cow<'de, str>>,
}

impl<'de> Names<'de> {
    /// Whether the name is new.
    fn insert(&mut self, name: Cow<'de, str>) -> bool {
        if self.others.is_empty() && self.sorted.last().is_none_or(|last| *last < name) {
            self.sorted.push(name);
            return true;
        }
        self.sorted.binary_search(&name).is_err() && self.others.insert(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::Value;
    use std::collections::BTreeMap;

    #[derive(Deserialize, PartialEq, Debug)]
    struct Point {
        x: u32,
        y: Option<u32>,
    }

    #[derive(Deserialize, PartialEq, Debug)]
    enum Shape {
        Nothing,
        Dot(Point),
        Line(Point, Point),
        Circle { middle: Point, radius: i64 },
    }

    #[derive(Deserialize, PartialEq, Debug)]
    struct Wrapped(BTreeMap<String, Vec<Shape>>);

    fn refused<T: DeserializeOwned>(json: &str) -> String {
        match from_slice::<T>(json.as_bytes()) {
            Ok(_) => panic!("{json} is taken"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_is_plain_is_read_as_serde_json_reads_it() {
        let json = br#" {"b":["Nothing",{"Dot":{"x":1}},{"Line":[{"x":1,"y":2},{"y":null,"x":3}]}],"a":[{"Circle":{"radius":-4,"middle":{"x":5}}}]} "#;
        assert_eq!(
            from_slice::<Wrapped>(json).expect("plain"),
            serde_json::from_slice::<Wrapped>(json).expect("plain")
        );
        let json = br#"{"null":null,"true":true,"text":"\u00e9\ud83d\ude00","numbers":[0,-1,9007199254740992,-9007199254740992],"c":{"b":{},"a":[]}}"#;
        assert_eq!(from_slice::<Value>(json).expect("plain"), serde_json::from_slice::<Value>(json).expect("plain"));
    }

    #[test]
    fn a_name_that_comes_twice_is_refused_wherever_it_is() {
        for json in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"c":1,"a":2,"b":3,"a":4}"#,
            r#"{"c":1,"a":2,"b":3,"c":4}"#,
            r#"[{"x":[{"a":1,"b":2,"a":3}]}]"#,
            r#"{"a":{"b":1},"a":{"c":2}}"#,
        ] {
            assert!(refused::<Value>(json).contains("comes twice"), "{json}");
        }
        // Also in what its type does not know.
        assert!(refused::<Point>(r#"{"x":1,"more":{"a":1,"a":2}}"#).contains("comes twice"));
        assert!(refused::<Shape>(r#"{"Circle":{"middle":{"x":1,"x":2},"radius":3}}"#).contains("comes twice"));
        assert!(refused::<Shape>(r#"{"Dot":{"x":1,"x":2}}"#).contains("comes twice"));
        assert!(refused::<Shape>(r#"{"Line":[{"x":1},{"x":1,"x":2}]}"#).contains("comes twice"));
    }

    #[test]
    fn a_number_that_readers_could_round_or_spell_otherwise_is_refused() {
        for number in [
            "1.0",
            "1e2",
            "-0",
            "-0.0",
            "0.5",
            "1E400",
            "9007199254740993",
            "-9007199254740993",
            "18446744073709551616",
            "1e999",
        ] {
            for json in [number.to_owned(), format!("[{number}]"), format!("{{\"a\":{number}}}")] {
                refused::<Value>(&json);
            }
            refused::<Point>(&format!("{{\"x\":1,\"more\":{number}}}"));
        }
        for number in ["01", "+1", "1.", ".5", "0x10", "NaN", "Infinity", "-Infinity", "nan"] {
            refused::<Value>(number);
        }
    }

    #[test]
    fn a_struct_is_an_object_and_never_an_array() {
        refused::<Point>("[1,2]");
        refused::<Vec<Point>>("[[1,2]]");
        refused::<Shape>(r#"{"Dot":[1,2]}"#);
        refused::<Shape>(r#"{"Circle":[{"x":1},2]}"#);
        refused::<BTreeMap<String, Option<Point>>>(r#"{"a":[1,2]}"#);
    }

    #[test]
    fn broken_text_depth_and_what_follows_are_refused() {
        for json in [
            r#""\ud800""#,
            r#""\udc00\ud800""#,
            r#"{"\ud800":1}"#,
            "{} {}",
            "1,",
            "\u{feff}1",
            "",
            "[1,]",
            "{\"a\":1,}",
            "'a'",
            "/**/1",
        ] {
            refused::<Value>(json);
        }
        assert!(from_slice::<Value>(b"\"\xc3\x28\"").is_err() && from_slice::<Value>(b"{\"\xff\":1}").is_err());
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let nested = |depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
            assert!(from_slice::<Value>(nested(100).as_bytes()).is_ok());
            assert!(refused::<Value>(&nested(100_000)).contains("recursion"), "{open}");
            assert!(refused::<Point>(&format!("{{\"x\":1,\"more\":{}}}", nested(100_000))).contains("recursion"));
        }
    }
}
