//! The directory backend against the suite that every backend passes.

use std::sync::Arc;

use margay_datastore::Datastore;
use margay_datastore::testing::{Faults, Faulty, open_dir, run_suite};

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_fulfils_the_contract_of_a_datastore() {
    let root = tempfile::tempdir().unwrap();
    run_suite(async || open_dir(root.path()).await as Arc<dyn Datastore>).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fault_injector_without_faults_fulfils_the_contract_too() {
    let root = tempfile::tempdir().unwrap();
    run_suite(async || {
        let inner = open_dir(root.path()).await;
        Arc::new(Faulty::new(inner, Faults::default(), 1)) as Arc<dyn Datastore>
    })
    .await;
}
