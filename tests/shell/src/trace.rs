//! What happens above TLS, line by line: frames in and out, and what nodes and clients say of themselves.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, Registry};

/// Those whose words count. What the store says names folders, which differ from run to run.
const SPEAKERS: &[&str] = &["rejoin_wire", "rejoin_node", "rejoin_client"];
/// turmoil's, which enters a span named after the host whose turn it is.
const STAGE: &str = "turmoil";

/// Lines: virtual time, host, and what it said.
#[derive(Clone, Default, Debug)]
struct Trace(Arc<Mutex<Vec<String>>>);

/// Runs something on this thread and traces it.
pub fn traced(run: impl FnOnce()) -> Vec<String> {
    let trace = Trace::default();
    tracing::subscriber::with_default(Registry::default().with(trace.clone()), run);
    let mut lines = trace.0.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut *lines)
}

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
        let mut words = Words::default();
        event.record(&mut words);
        let at = turmoil::sim_elapsed().unwrap_or_default().as_micros();
        let host = context
            .event_scope(event)
            .and_then(|scope| scope.from_root().find_map(|span| span.extensions().get::<Host>().map(|host| host.0.clone())));
        let line = format!("{at:>9} {} {}{}", host.unwrap_or_default(), event.metadata().target(), words.text);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
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
