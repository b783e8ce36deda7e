//! A backend that passes everything on to another and injects what a bad day brings.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use serde_json::Value;

use crate::error::Error;
use crate::object::{Cursor, Key, Kind, Object, Revision};
use crate::store::{Datastore, EventStream, Listing};

/// Probabilities from 0 to 1, each by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A write with an expected revision is refused as if somebody else had been first.
    pub conflict: f64,
    /// A call fails before it has done anything.
    pub unavailable: f64,
    /// A write is done, but the answer is an error.
    pub lost_answer: f64,
    /// A watch begins with `TooOld`.
    pub too_old: f64,
    /// A watch ends after an event, without a word.
    pub dropped_watch: f64,
    /// Longest pause before a call; each takes a random part of it.
    pub delay: Duration,
}

/// The wrapper. The same seed gives the same faults to the same sequence of calls.
pub struct Faulty {
    inner: Arc<dyn Datastore>,
    faults: Mutex<Faults>,
    random: Arc<Mutex<fastrand::Rng>>,
    injected: Arc<AtomicU64>,
}

// === impl Faulty ===

impl Faulty {
    /// Wraps a backend.
    pub fn new(inner: Arc<dyn Datastore>, faults: Faults, seed: u64) -> Self {
        let random = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
        Self { inner, faults: Mutex::new(faults), random, injected: Arc::default() }
    }

    /// Changes the faults from now on, e.g. to none at the end of a test.
    pub fn set(&self, faults: Faults) {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// How many faults were injected: a test that meets none proves nothing.
    pub fn injected(&self) -> u64 {
        self.injected.load(Ordering::Relaxed)
    }

    fn faults(&self) -> Faults {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn strikes(&self, probability: f64) -> bool {
        strikes(&self.random, &self.injected, probability)
    }

    async fn enter(&self) -> Result<(), Error> {
        let faults = self.faults();
        if !faults.delay.is_zero() {
            let part = self.random.lock().unwrap_or_else(PoisonError::into_inner).f64();
            tokio::time::sleep(faults.delay.mul_f64(part)).await;
        }
        if self.strikes(faults.unavailable) {
            return Err(Error::Unavailable { reason: "injected before the call" });
        }
        Ok(())
    }

    fn conflict(&self, key: &Key, expected: Option<&Revision>) -> Result<(), Error> {
        match expected {
            Some(expected) if self.strikes(self.faults().conflict) => Err(Error::Conflict {
                key: Box::new(key.clone()),
                expected: expected.clone(),
                found: Revision("injected".into()),
            }),
            _ => Ok(()),
        }
    }

    fn leave<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if result.is_ok() && self.strikes(self.faults().lost_answer) {
            return Err(Error::Unavailable { reason: "injected after the call was done" });
        }
        result
    }
}

fn strikes(random: &Mutex<fastrand::Rng>, injected: &AtomicU64, probability: f64) -> bool {
    let hit = random.lock().unwrap_or_else(PoisonError::into_inner).f64() < probability;
    injected.fetch_add(u64::from(hit), Ordering::Relaxed);
    hit
}

#[async_trait]
impl Datastore for Faulty {
    async fn list(&self, kind: &Kind) -> Result<Listing, Error> {
        self.enter().await?;
        self.inner.list(kind).await
    }

    async fn watch(&self, kind: &Kind, from: Cursor) -> Result<EventStream, Error> {
        self.enter().await?;
        if self.strikes(self.faults().too_old) {
            return Err(Error::TooOld { from });
        }
        let events = self.inner.watch(kind, from).await?;
        let (random, injected) = (self.random.clone(), self.injected.clone());
        let dropped = self.faults().dropped_watch;
        Ok(events
            .take_while(move |_| {
                let goes_on = !strikes(&random, &injected, dropped);
                async move { goes_on }
            })
            .boxed())
    }

    async fn get(&self, key: &Key) -> Result<Arc<Object>, Error> {
        self.enter().await?;
        self.inner.get(key).await
    }

    async fn create(&self, value: Value) -> Result<Arc<Object>, Error> {
        self.enter().await?;
        self.leave(self.inner.create(value).await)
    }

    async fn create_default(&self, value: Value) -> Result<Arc<Object>, Error> {
        self.enter().await?;
        self.leave(self.inner.create_default(value).await)
    }

    async fn update(
        &self,
        value: Value,
        expected: Option<&Revision>,
    ) -> Result<Arc<Object>, Error> {
        self.enter().await?;
        self.conflict(&Key::of(&value)?, expected)?;
        self.leave(self.inner.update(value, expected).await)
    }

    async fn delete(&self, key: &Key, expected: Option<&Revision>) -> Result<Arc<Object>, Error> {
        self.enter().await?;
        self.conflict(key, expected)?;
        self.leave(self.inner.delete(key, expected).await)
    }

    async fn sync(&self, kinds: &[Kind]) -> Result<Vec<Cursor>, Error> {
        self.enter().await?;
        self.inner.sync(kinds).await
    }
}
