//! Who writes the law down: follows a compiler, change by change.

use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use margay_compile::{Compiler, Requests};
use margay_model::{Endpoint, Update};
use margay_tables::PolicyBook;
use tokio::sync::watch;

use crate::law::{Law, Resident};

/// Keeps the law as a node's compiler has it. What a change costs: what the classifier compiles
/// because of it, and a look at each workload of the node.
#[derive(Debug)]
pub struct Scribe {
    book: PolicyBook,
    requests: Option<Requests>,
    law: watch::Sender<Option<Arc<Law>>>,
}

// === impl Scribe ===

impl Scribe {
    /// A scribe who has not written anything, and where the law will be; `None` until then.
    pub fn new() -> (Self, watch::Receiver<Option<Arc<Law>>>) {
        let (law, read) = watch::channel(None);
        (Self { book: PolicyBook::default(), requests: None, law }, read)
    }

    /// Writes down what a flush of the compiler changed. To be called after each, the first one
    /// with a complete state, and always with the same compiler.
    pub fn note(&mut self, updates: &[Update], compiler: &Compiler) {
        let requests = compiler.requests();
        let is_same = self.requests.as_ref().is_some_and(|old| old.is_same(&requests));
        if updates.is_empty() && is_same {
            return;
        }
        for update in updates {
            self.book.note(update);
        }
        let endpoints = compiler.state().endpoints.values();
        let residents = self.residents(endpoints.map(|endpoint| &**endpoint));
        self.requests = Some(requests.clone());
        let classifier = self.book.classifier();
        self.law.send_replace(Some(Arc::new(Law { classifier, residents, requests })));
    }

    fn residents<'e>(
        &mut self,
        endpoints: impl Iterator<Item = &'e Endpoint>,
    ) -> HashMap<std::net::IpAddr, Resident> {
        let mut residents: HashMap<_, Resident> = HashMap::new();
        // Host endpoints have keys without a namespace; no proxy stands before a host.
        for endpoint in endpoints.filter(|endpoint| !endpoint.key.starts_with('/')) {
            let policy = self.book.endpoint(endpoint);
            for address in &endpoint.addresses {
                let (key, priority) = (endpoint.key.clone(), endpoint.priority);
                let resident = Resident { key, priority, policy: policy.clone() };
                match residents.entry(*address) {
                    Entry::Occupied(mut held) if held.get().priority < priority => {
                        held.insert(resident);
                    }
                    Entry::Occupied(_) => {}
                    Entry::Vacant(free) => {
                        free.insert(resident);
                    }
                }
            }
        }
        residents
    }
}
