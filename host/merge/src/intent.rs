//! What a plugin's operations mean, as a file: the law checker compares every short history of them with it.
//!
//! ```json
//! {
//!   "format": 1,
//!   "specification": "set",
//!   "operations": [{"add": "x"}, {"remove": "x"}, {"add": "y"}],
//!   "operator": {"add": "add {name}", "remove": "remove {name}"},
//!   "question": "members"
//! }
//! ```
//!
//! The plugin's `operator` carries out operations, if the file has the texts for it. Otherwise the values are edited as
//! JSON, as a client without causality of its own does. `scenarios` has single histories that a file may have beside.

mod scenarios;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use scenarios::{FileScenario, RawScenario};

use rejoin_laws::{DeclaredIntent, Edit, Facts, Intent, OperationDot, Roles, Specification};
use rejoin_proto::catalog::fuel_for;

use crate::limits::CallLimits;
use crate::operate;
use crate::under_test::PluginUnderTest;

/// The version of the format. Files of other versions are refused.
const FORMAT: u64 = 1;
/// The most operations of a file: all histories of them are tried.
const MAX_OPERATIONS: usize = 16;
/// The key of the operations.
const KEY: &[u8] = b"history";

/// An intent file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IntentFile {
    declared: DeclaredIntent,
    operator: Option<Templates>,
    question: Option<String>,
    scenarios: Vec<FileScenario>,
    /// The edits of the scenarios' operations.
    scenario_edits: BTreeMap<String, Edit>,
}

/// Why a file is no intent.
#[derive(Debug, thiserror::Error)]
#[error(
    "this is no intent: {0}. It is JSON with `format` 1, a `specification` (set, counts, map or maximum), and \
        `operations` such as {{\"add\": \"x\"}}, {{\"remove\": \"x\"}} or {{\"set\": \"x\", \"to\": \"1\"}}"
)]
pub struct IntentError(String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    format: u64,
    specification: Kind,
    operations: Vec<RawEdit>,
    operator: Option<Templates>,
    question: Option<String>,
    #[serde(default)]
    scenarios: Vec<RawScenario>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Set,
    Counts,
    Map,
    Maximum,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEdit {
    add: Option<String>,
    remove: Option<String>,
    set: Option<String>,
    amount: Option<u64>,
    to: Option<Value>,
}

/// The operations as the plugin reads them, with `{name}`, `{amount}` and `{to}` in them.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Templates {
    add: Option<String>,
    remove: Option<String>,
    set: Option<String>,
}

impl IntentFile {
    /// Parses a file.
    ///
    /// # Errors
    /// [`IntentError`] says what is wrong with it.
    pub fn parse(json: &[u8]) -> Result<Self, IntentError> {
        let raw: Raw = serde_json::from_slice(json).map_err(|error| IntentError(error.to_string()))?;
        if raw.format != FORMAT {
            return Err(IntentError(format!("it is in format {}, and this release reads format {FORMAT}", raw.format)));
        }
        if !(1..=MAX_OPERATIONS).contains(&raw.operations.len()) {
            let what = format!("it has {} operations, and 1 to {MAX_OPERATIONS} can be tried", raw.operations.len());
            return Err(IntentError(what));
        }
        let specification = match raw.specification {
            Kind::Set => Specification::Set,
            Kind::Counts => Specification::Counts,
            Kind::Map => Specification::Map,
            Kind::Maximum => Specification::Maximum,
        };
        let edits = raw.operations.into_iter().map(named).collect::<Result<BTreeMap<_, _>, _>>()?;
        let (scenarios, scenario_edits) = scenarios::read(raw.scenarios, specification)?;
        if let Some(templates) = &raw.operator
            && let Some((name, _)) =
                edits.iter().chain(&scenario_edits).find(|(_, edit)| templates.text(edit).is_none())
        {
            return Err(IntentError(format!("`operator` has no text for {name:?}")));
        }
        let declared = DeclaredIntent { specification, edits };
        Ok(Self { declared, operator: raw.operator, question: raw.question, scenarios, scenario_edits })
    }
}

/// An edit and the name of its operation.
fn named(raw: RawEdit) -> Result<(String, Edit), IntentError> {
    match raw {
        RawEdit { add: Some(name), remove: None, set: None, amount, to: None } => {
            let amount = amount.unwrap_or(1);
            let operation = if amount == 1 { format!("add {name}") } else { format!("add {name} {amount}") };
            Ok((operation, Edit::Add { name, amount }))
        }
        RawEdit { remove: Some(name), add: None, set: None, amount: None, to: None } => {
            Ok((format!("remove {name}"), Edit::Remove { name }))
        }
        RawEdit { set: Some(name), to: Some(to), add: None, remove: None, amount: None } => {
            let to = content(&to);
            let operation = if name.is_empty() { format!("set {to}") } else { format!("set {name} to {to}") };
            Ok((operation, Edit::Set { name, to }))
        }
        _ => Err(IntentError(
            "an operation has `add` and perhaps `amount`, or `remove`, or `set` and `to`, and nothing else".into(),
        )),
    }
}

impl Templates {
    /// The operation for an edit; `None` without a text.
    fn text(&self, edit: &Edit) -> Option<String> {
        match edit {
            Edit::Add { name, amount } => {
                Some(self.add.as_ref()?.replace("{name}", name).replace("{amount}", &amount.to_string()))
            }
            Edit::Remove { name } => Some(self.remove.as_ref()?.replace("{name}", name)),
            Edit::Set { name, to } => Some(self.set.as_ref()?.replace("{name}", name).replace("{to}", to)),
            _ => None,
        }
    }
}

/// The intent of a component.
#[derive(Debug)]
pub struct ComponentIntent<'a> {
    under_test: &'a PluginUnderTest,
    file: &'a IntentFile,
}

impl<'a> ComponentIntent<'a> {
    /// The operations of a file on a component.
    ///
    /// # Errors
    /// [`IntentError`] if the file needs an ability that the plugin does not export.
    pub fn new(under_test: &'a PluginUnderTest, file: &'a IntentFile) -> Result<Self, IntentError> {
        let needs = [("operator", file.operator.is_some()), ("question", file.question.is_some())];
        match needs.iter().find(|(_, needed)| *needed && !under_test.plugin.exports().operate) {
            Some((what, _)) => Err(IntentError(format!(
                "it has a text for `{what}`, and the plugin has no operations: list Operator in rejoin_guest::export!"
            ))),
            None => Ok(Self { under_test, file }),
        }
    }

    fn limits(&self, bytes: usize) -> CallLimits {
        CallLimits { fuel: fuel_for(self.under_test.limits.fuel, bytes), ..self.under_test.limits }
    }

    /// The value as JSON in which facts can be read: the plugin's answer to the question, what it shows, or the value
    /// itself.
    fn shown(&self, value: &[u8]) -> Result<Vec<u8>, String> {
        let PluginUnderTest { host, plugin, .. } = self.under_test;
        let limits = self.limits(value.len());
        let shown = match &self.file.question {
            Some(question) => {
                host.query(plugin, value, question.as_bytes(), &limits).map(|answer| answer.value.to_vec())
            }
            None if plugin.exports().present => host.show(plugin, value, &limits),
            None => Ok(value.to_vec()),
        };
        shown.map_err(|fault| fault.to_string())
    }
}

impl Intent for ComponentIntent<'_> {
    fn operations(&self) -> Vec<String> {
        self.file.declared.operations()
    }

    fn apply(&self, state: Option<&[u8]>, operation: &str, dot: OperationDot) -> Result<Vec<u8>, String> {
        let IntentFile { declared, scenario_edits, .. } = self.file;
        let edit = declared.edits.get(operation).or_else(|| scenario_edits.get(operation));
        let edit = edit.ok_or("there is no such operation")?;
        let Some(text) = self.file.operator.as_ref().and_then(|templates| templates.text(edit)) else {
            return edited(self.file.declared.specification, state, edit);
        };
        let PluginUnderTest { host, plugin, .. } = self.under_test;
        let limits = self.limits(state.map_or(0, <[u8]>::len) + text.len());
        let dot = operate::OperationDot { actor: dot.actor, counter: dot.counter };
        let applied = host.apply(plugin, (KEY, state), (text.as_bytes(), dot), &limits);
        applied.map(|applied| applied.value.to_vec()).map_err(|fault| fault.to_string())
    }

    fn facts(&self, value: &[u8]) -> Result<Facts, String> {
        let shown = self.shown(value)?;
        let json: Value =
            serde_json::from_slice(&shown).map_err(|error| format!("what is shown is no JSON: {error}"))?;
        Ok(facts(self.file.declared.specification, json))
    }

    fn specification(&self, operations: &[&str]) -> Facts {
        self.file.declared.after(operations)
    }

    fn roles(&self) -> Option<Roles> {
        self.file.declared.roles()
    }
}

/// The text of a JSON value; of a text the text itself.
fn content(json: &Value) -> String {
    json.as_str().map_or_else(|| json.to_string(), str::to_owned)
}

/// The text and the other member of an object of two, such as a player and a score.
fn pair(json: &Value) -> Option<(String, String)> {
    let members: Vec<&Value> = json.as_object().filter(|members| members.len() == 2)?.values().collect();
    let at = members.iter().position(|member| member.is_string())?;
    Some((content(members[at]), content(members[1 - at])))
}

/// A list of names or of names with their contents, the members of an object, or one content.
fn facts(specification: Specification, json: Value) -> Facts {
    let content_of = |value: &Value| if specification == Specification::Set { String::new() } else { content(value) };
    match json {
        Value::Null => Facts::new(),
        Value::Array(items) => {
            items.iter().map(|item| pair(item).unwrap_or_else(|| (content(item), String::new()))).collect()
        }
        Value::Object(members) => members.into_iter().map(|(name, value)| (name, content_of(&value))).collect(),
        value => [(String::new(), content(&value))].into(),
    }
}

/// The JSON value after an edit: a list of names for a set, an object otherwise, one content if the name is empty.
fn edited(specification: Specification, state: Option<&[u8]>, edit: &Edit) -> Result<Vec<u8>, String> {
    let json = state.map_or(Ok(Value::Null), serde_json::from_slice);
    let mut all = facts(specification, json.map_err(|error| format!("the value is no JSON: {error}"))?);
    let intent = DeclaredIntent { specification, edits: BTreeMap::new() };
    intent.edit(&mut all, edit);
    let number_or_text = |text: String| text.parse::<u64>().map_or(Value::String(text), Value::from);
    let json = match (specification, all.remove("")) {
        (Specification::Set, _) => Value::Array(all.into_keys().map(Value::String).collect()),
        (_, Some(content)) => number_or_text(content),
        (_, None) => {
            Value::Object(all.into_iter().map(|(name, text)| (name, number_or_text(text))).collect::<Map<_, _>>())
        }
    };
    Ok(json.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: &str = r#"{"format":1,"specification":"set","operations":[{"add":"x"},{"remove":"x"},{"add":"y"}]}"#;

    #[test]
    fn a_file_declares_operations() {
        let file = IntentFile::parse(SET.as_bytes()).expect("an intent");
        assert_eq!(file.declared.operations(), ["add x", "add y", "remove x"]);
        assert_eq!(file.declared.after(&["add x", "add y", "remove x"]).len(), 1);
    }

    #[test]
    fn what_is_no_intent_is_refused_with_what_one_is() {
        let with = |from: &str, to: &str| IntentFile::parse(SET.replacen(from, to, 1).as_bytes());
        for (from, to, words) in [
            ("{", "[", "no intent"),
            ("\"format\":1", "\"format\":2", "format 2"),
            ("\"set\"", "\"sets\"", "unknown variant"),
            ("\"add\":\"x\"", "\"add\":\"x\",\"remove\":\"x\"", "nothing else"),
            ("\"add\":\"x\"", "\"set\":\"x\"", "nothing else"),
            ("\"add\":\"x\"", "\"put\":\"x\"", "unknown field"),
            ("[{\"add\":\"x\"},{\"remove\":\"x\"},{\"add\":\"y\"}]", "[]", "0 operations"),
            ("}]}", "}],\"operator\":{\"add\":\"+{name}\"}}", "no text for \"remove x\""),
        ] {
            let error = with(from, to).expect_err(to).to_string();
            assert!(error.contains(words) && error.contains("`operations` such as"), "{to}: {error}");
        }
    }

    #[test]
    fn values_are_edited_as_json() {
        let edit = |kind, state: Option<&str>, edit: Edit| {
            String::from_utf8(edited(kind, state.map(str::as_bytes), &edit).expect("JSON")).expect("text")
        };
        let add = |name: &str, amount| Edit::Add { name: name.into(), amount };
        let set = |name: &str, to: &str| Edit::Set { name: name.into(), to: to.into() };
        assert_eq!(edit(Specification::Set, None, add("x", 1)), r#"["x"]"#);
        assert_eq!(edit(Specification::Set, Some(r#"["x","y"]"#), Edit::Remove { name: "x".into() }), r#"["y"]"#);
        assert_eq!(edit(Specification::Counts, Some(r#"{"x":2}"#), add("x", 3)), r#"{"x":5}"#);
        assert_eq!(edit(Specification::Map, Some(r#"{"x":"a"}"#), set("y", "1")), r#"{"x":"a","y":1}"#);
        assert_eq!(edit(Specification::Maximum, Some("7"), set("", "12")), "12");
        assert_eq!(edit(Specification::Maximum, Some("7"), set("", "3")), "7");
        assert!(edited(Specification::Set, Some(b"{"), &add("x", 1)).is_err());
    }

    #[test]
    fn facts_are_read_in_lists_objects_and_contents() {
        let read = |json: &str| facts(Specification::Maximum, serde_json::from_str(json).expect("JSON"));
        let expected = |all: &[(&str, &str)]| -> Facts {
            all.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect()
        };
        assert_eq!(read(r#"["x",{"player":"ann","score":5}]"#), expected(&[("ann", "5"), ("x", "")]));
        assert_eq!(read(r#"{"x":5,"y":"a"}"#), expected(&[("x", "5"), ("y", "a")]));
        assert_eq!((read("7"), read("null")), (expected(&[("", "7")]), expected(&[])));
    }

    #[test]
    fn operations_are_written_as_the_plugin_reads_them() {
        let templates =
            Templates { add: Some("+{name} {amount}".into()), remove: None, set: Some("{name}={to}".into()) };
        assert_eq!(templates.text(&Edit::Add { name: "x".into(), amount: 2 }).as_deref(), Some("+x 2"));
        assert_eq!(templates.text(&Edit::Set { name: "x".into(), to: "1".into() }).as_deref(), Some("x=1"));
        assert_eq!(templates.text(&Edit::Remove { name: "x".into() }), None);
    }
}
