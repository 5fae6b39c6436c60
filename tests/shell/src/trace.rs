//! What happens above TLS, line by line: frames in and out, and what nodes and clients say of themselves.

use std::cell::RefCell;
use std::fmt::{Debug, Write as _};
use std::sync::Once;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, Registry};

/// Those whose words count. What the store says names folders, which differ from run to run.
const SPEAKERS: &[&str] = &["rejoin_wire", "rejoin_node", "rejoin_client"];
/// turmoil's, which enters a span named after the host whose turn it is.
const STAGE: &str = "turmoil";

thread_local! {
    /// The lines of the run that this thread traces: virtual time, host, and what it said.
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Runs something on this thread and traces it.
///
/// # Panics
/// If this process has a subscriber of somebody else's.
pub fn traced(run: impl FnOnce()) -> Vec<String> {
    // One for all threads, and at work on those that want it: what a scoped one hears depends on which thread has met a
    // line of code first.
    static INSTALLED: Once = Once::new();
    INSTALLED
        .call_once(|| tracing::subscriber::set_global_default(Registry::default().with(Trace)).expect("the only one"));
    LINES.set(Some(Vec::new()));
    run();
    LINES.take().unwrap_or_default()
}

struct Trace;

/// A host's name, kept with its span.
struct Host(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Trace {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let crate_of = metadata.target().split("::").next().unwrap_or_default();
        SPEAKERS.contains(&crate_of) || (metadata.is_span() && crate_of == STAGE)
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut words = Words::default();
        attributes.record(&mut words);
        if let (Some(name), Some(span)) = (words.name, context.span(id)) {
            span.extensions_mut().insert(Host(name));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if LINES.with_borrow(Option::is_none) {
            return;
        }
        let mut words = Words::default();
        event.record(&mut words);
        let at = turmoil::sim_elapsed().unwrap_or_default().as_micros();
        let host = context.event_scope(event).and_then(|scope| {
            scope.from_root().find_map(|span| span.extensions().get::<Host>().map(|host| host.0.clone()))
        });
        let line = format!("{at:>9} {} {}{}", host.unwrap_or_default(), event.metadata().target(), words.text);
        LINES.with_borrow_mut(|lines| lines.get_or_insert_default().push(line));
    }
}

#[derive(Default)]
struct Words {
    text: String,
    name: Option<String>,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // A text has no room for an error.
        let _ = write!(self.text, " {}={value:?}", field.name());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "name" {
            self.name = Some(value.to_owned());
        }
        self.record_debug(field, &value);
    }
}
