//! On generated clusters, the steps that are shown lead to what `policy simulate` answers.

use fastrand::Rng;
use proptest::prelude::*;

use super::*;
use crate::court::generate;

fn place(address: IpAddr) -> Place {
    Place { what: What::Address, name: address.to_string(), addresses: vec![address] }
}

/// What the steps of a side lead to.
fn conclusion(side: &SideReport) -> Option<&Side> {
    let lists = side.lists.last().map(|list| &list.walk);
    side.walk.as_ref().or(lists).map(|walk| &walk.conclusion)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn the_steps_lead_to_the_tier_policy_and_rule_that_simulate_names(seed in any::<u64>()) {
        let mut rng = Rng::with_seed(seed);
        let compiler = court::compile(generate::guarded(&mut rng));
        let (known, all) = (Known::default(), rng.bool());
        let expert = Expert { compiler: &compiler, preview: &None, known: &known, all };
        let mut court = Court::small(&compiler);
        for _ in 0..50 {
            let flow = generate::flow(&mut rng);
            let case = court.hear(&flow);
            let answer = court.decide(case);
            let report = expert.report(&flow, &place(flow.src), &place(flow.dst));
            prop_assert_eq!(report.verdict, answer.verdict);
            prop_assert_eq!(report.backend, answer.backend);
            for (side, said) in [(report.egress, answer.egress), (report.ingress, answer.ingress)] {
                prop_assert_eq!(&side.side, &said);
                if let Some(last) = conclusion(&side) {
                    prop_assert_eq!(last, &said, "{:?}", flow);
                }
            }
            let said = answer.passages.unwrap();
            prop_assert_eq!(report.passages.len(), said.len());
            for (passage, said) in report.passages.into_iter().zip(said) {
                prop_assert_eq!(conclusion(&passage.side), Some(&said.side), "{:?}", flow);
                prop_assert_eq!(passage.side.side, said.side);
            }
            let service = report.service.into_iter().flat_map(|service| service.backends);
            for backend in service.filter(|backend| backend.taken) {
                prop_assert_eq!(Some((backend.addr, backend.port)),
                    answer.backend.map(|b| (b.ip(), b.port())));
                prop_assert_eq!(backend.verdict, Some(answer.verdict));
            }
        }
    }
}
