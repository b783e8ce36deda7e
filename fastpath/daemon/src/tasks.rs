//! Tasks that last as long as the process.

use std::collections::HashMap;

use anyhow::anyhow;
use tokio::task::{Id, JoinSet};

/// Such tasks, by name.
#[derive(Default)]
pub(crate) struct Tasks {
    set: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, &'static str>,
}

// === impl Tasks ===

impl Tasks {
    /// Starts one.
    pub(crate) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let id = self.set.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Waits until one ends: which, and why. For ever where there is none.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        let (id, error) = match self.set.join_next_with_id().await {
            Some(Ok((id, Ok(())))) => (id, anyhow!("has ended")),
            Some(Ok((id, Err(error)))) => (id, error),
            Some(Err(error)) => (error.id(), error.into()),
            None => std::future::pending().await,
        };
        error.context(self.names.get(&id).copied().unwrap_or_default())
    }

    /// Ends all of them.
    pub(crate) async fn shutdown(&mut self) {
        self.set.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_task_is_told_with_its_name() {
        let mut tasks = Tasks::default();
        tasks.spawn("one that goes on", std::future::pending());
        tasks.spawn("one that ends", async { Ok(()) });
        assert_eq!(format!("{:#}", tasks.ended().await), "one that ends: has ended");
        tasks.spawn("one that fails", async { Err(anyhow!("no more ink")) });
        assert_eq!(format!("{:#}", tasks.ended().await), "one that fails: no more ink");
        tasks.spawn("one that panics", async { panic!("as a task might") });
        let told = format!("{:#}", tasks.ended().await);
        assert!(
            told.starts_with("one that panics: ") && told.contains("as a task might"),
            "{told}"
        );
        tasks.shutdown().await;
    }
}
