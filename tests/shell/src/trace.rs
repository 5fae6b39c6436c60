//! Records everything above TLS, line by line: frames in and out, and the log lines of nodes and clients.

use std::cell::RefCell;
use std::fmt::{Debug, Write as _};
use std::sync::Once;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, Registry};

/// The recorded crates. Log lines of the store are left out, because they name folders, which differ from run to run.
const CRATES: &[&str] = &["rejoin_wire", "rejoin_node", "rejoin_client"];
/// turmoil enters a span that has the name of the host that runs.
const TURMOIL: &str = "turmoil";

thread_local! {
    /// The lines recorded on this thread: virtual time, host and text.
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Runs a function on this thread and returns the recorded lines.
///
/// # Panics
/// If the process has another global subscriber.
pub fn traced(run: impl FnOnce()) -> Vec<String> {
    // One global subscriber that records on threads that ask for it. A scoped one may miss lines, because tracing
    // caches per call site whether anybody listens.
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| tracing::subscriber::set_global_default(Registry::default().with(Trace)).expect("the only one"));
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
        CRATES.contains(&crate_of) || (metadata.is_span() && crate_of == TURMOIL)
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let (Some(name), Some(span)) = (fields.name, context.span(id)) {
            span.extensions_mut().insert(Host(name));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if LINES.with_borrow(Option::is_none) {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let at = turmoil::sim_elapsed().unwrap_or_default().as_micros();
        let host = context
            .event_scope(event)
            .and_then(|scope| scope.from_root().find_map(|span| span.extensions().get::<Host>().map(|host| host.0.clone())));
        let line = format!("{at:>9} {} {}{}", host.unwrap_or_default(), event.metadata().target(), fields.text);
        LINES.with_borrow_mut(|lines| lines.get_or_insert_default().push(line));
    }
}

#[derive(Default)]
struct Fields {
    text: String,
    name: Option<String>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string cannot fail.
        let _ = write!(self.text, " {}={value:?}", field.name());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "name" {
            self.name = Some(value.to_owned());
        }
        self.record_debug(field, &value);
    }
}
