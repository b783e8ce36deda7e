//! The interface plugin's verbs, one file each.

mod add;

mod del;

mod check;

pub(crate) mod gc;

pub(crate) mod status;

use margay_cni_api::{Attachment, Client, CniError, Workload};

use crate::Output;
use crate::config::NetConf;
use crate::environment::{Environment, Verb};
use crate::veth;

/// What ADD, DEL and CHECK are about.
#[derive(Debug)]
struct Subject<'a> {
    environment: &'a Environment,
    config: &'a NetConf,
    agent: Client,
    attachment: Attachment,
    workload: Workload,
    host_name: String,
}

/// Runs a verb of the interface plugin.
pub(crate) fn run(environment: &Environment, config: &NetConf) -> Result<Output, CniError> {
    let subject = || Subject::new(environment, config);
    match environment.verb {
        Verb::Add => add::run(&subject()).map(|result| Some(result.to_json(config.version))),
        Verb::Del => del::run(&subject()).map(|()| None),
        Verb::Check => check::run(&subject()).map(|()| None),
        Verb::Gc => gc::run(environment, config).map(|()| None),
        Verb::Status => status::run(environment, config).map(|()| None),
        // Answered before the configuration was read.
        Verb::Version => Ok(None),
    }
}

// === impl Subject ===

impl<'a> Subject<'a> {
    fn new(environment: &'a Environment, config: &'a NetConf) -> Self {
        let workload = environment.workload();
        Self {
            environment,
            config,
            agent: config.agent(),
            attachment: environment.attachment(&config.name),
            host_name: veth::host_name(&workload),
            workload,
        }
    }
}
