//! Manifests as the events of a cluster that changes. Entry point: [`State::apply`].

use anyhow::{Result, ensure};
use policy_compiler::{
    Cluster, Event,
    files::{Object, assemble, parse},
};

/// The cluster as the steps of a case have left it.
#[derive(Default)]
pub struct State(Cluster);

impl State {
    /// Puts the objects of a manifest, and tells what that changes.
    ///
    /// # Errors
    /// The manifest has something to be reported; no case is about that.
    pub fn apply(&mut self, manifest: &str) -> Result<Vec<Event>> {
        let parsed = parse("the case", manifest.as_bytes());
        let assembled = assemble([&parsed]);
        ensure!(assembled.diagnostics.is_empty(), "the manifest: {:?}", assembled.diagnostics);
        let mut events = assembled.cluster.events_since(&Cluster::default());
        // A namespace that the manifest only names keeps the labels it has.
        events.retain(|event| match event {
            Event::PutNamespace(namespace) => {
                let defined = parsed.objects.iter().any(|located| match &located.object {
                    Object::Namespace(object) => object.metadata.name.as_deref() == Some(&*namespace.name),
                    _ => false,
                });
                defined || !self.0.namespaces.contains_key(&namespace.name)
            }
            _ => true,
        });
        self.change(events)
    }

    /// Applies events, and tells those that change something.
    ///
    /// # Errors
    /// An event deletes what isn't there.
    pub fn change(&mut self, events: Vec<Event>) -> Result<Vec<Event>> {
        let mut after = self.0.clone();
        for event in &events {
            after.apply(event.clone());
        }
        let changes = after.events_since(&self.0);
        let deletes = |event: &Event| {
            matches!(event, Event::DeletePod(_) | Event::DeletePolicy(_) | Event::DeleteService(_))
                || matches!(event, Event::DeleteEndpointSlice(_) | Event::DeleteNamespace(_) | Event::DeleteNode(_))
        };
        let wanted = events.iter().filter(|event| deletes(event)).count();
        ensure!(changes.iter().filter(|event| deletes(event)).count() == wanted, "there is no such object to delete");
        self.0 = after;
        Ok(changes)
    }
}
