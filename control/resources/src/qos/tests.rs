use super::*;

fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What Calico's annotations say without a runtime.
fn calico(pairs: &[(&str, &str)]) -> (QosControls, Vec<String>) {
    let pairs: Vec<_> = pairs.iter().map(|(n, v)| (format!("{CALICO}{n}"), *v)).collect();
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let (controls, errors) = read(&annotations(&pairs), &QosControls::default());
    (controls, errors.iter().map(QosError::to_string).collect())
}

#[test]
fn every_annotation_has_its_field() {
    let (controls, errors) = calico(&[
        ("ingressBandwidth", "10M"),
        ("egressBandwidth", "20M"),
        ("ingressBurst", "1M"),
        ("egressBurst", "2M"),
        ("ingressPeakrate", "11M"),
        ("egressPeakrate", "21M"),
        ("ingressMinburst", "2k"),
        ("egressMinburst", "3k"),
        ("ingressPacketRate", "100"),
        ("egressPacketRate", "1k"),
        ("ingressPacketBurst", "7"),
        ("egressPacketBurst", "8"),
        ("ingressMaxConnections", "2k"),
        ("egressMaxConnections", "9"),
    ]);
    let expected = QosControls {
        ingress_bandwidth: 10_000_000,
        egress_bandwidth: 20_000_000,
        ingress_burst: 1_000_000,
        egress_burst: 2_000_000,
        ingress_peakrate: 11_000_000,
        egress_peakrate: 21_000_000,
        ingress_minburst: 2000,
        egress_minburst: 3000,
        ingress_packet_rate: 100,
        egress_packet_rate: 1000,
        ingress_packet_burst: 7,
        egress_packet_burst: 8,
        ingress_max_connections: 2000,
        egress_max_connections: 9,
        dscp: None,
    };
    assert_eq!((controls, errors), (expected, vec![]));
}

#[test]
fn bursts_have_calicos_defaults() {
    let (controls, errors) = calico(&[("egressBandwidth", "1M"), ("ingressPacketRate", "1")]);
    assert_eq!((controls.egress_burst, controls.ingress_packet_burst), (4_294_967_296, 5));
    assert_eq!((controls.ingress_burst, controls.egress_packet_burst), (0, 0));
    assert!(errors.is_empty());
}

#[test]
fn what_cannot_be_read_is_no_limit_and_what_is_out_of_bounds_is_the_bound() {
    let cases = [
        ("ingressBandwidth", "fast", 0),
        ("ingressBandwidth", "", 0),
        ("ingressBandwidth", "999", 1000),
        ("ingressBandwidth", "-1", 1000),
        ("ingressBandwidth", "2P", 1_000_000_000_000_000),
        ("ingressPacketRate", "0", 1),
        ("ingressPacketRate", "10001", 10_000),
        ("ingressMaxConnections", "few", 0),
        ("ingressMaxConnections", "0", 1),
        ("ingressMaxConnections", "5G", 4_294_967_295),
    ];
    for (name, text, taken) in cases {
        let (controls, errors) = calico(&[(name, text)]);
        let QosControls { ingress_bandwidth, ingress_packet_rate, .. } = controls;
        let value = ingress_bandwidth + ingress_packet_rate + controls.ingress_max_connections;
        assert_eq!(value, taken, "{name} {text}");
        assert!(matches!(&errors[..], [error] if error.contains(name)), "{errors:?}");
    }
    let (controls, errors) = calico(&[("egressBandwidth", "1M"), ("egressBurst", "34359738361")]);
    assert_eq!((controls.egress_burst, errors.len()), (34_359_738_360, 1));
}

#[test]
fn what_makes_no_sense_alone_is_ignored_and_told() {
    for (name, other) in [
        ("ingressBurst", "ingressBandwidth"),
        ("egressPeakrate", "egressBandwidth"),
        ("egressMinburst", "egressPeakrate"),
        ("ingressPacketBurst", "ingressPacketRate"),
    ] {
        let (controls, errors) = calico(&[(name, "5k")]);
        assert_eq!(controls, QosControls::default(), "{name}");
        assert!(matches!(&errors[..], [e] if e.contains(name) && e.contains(other)), "{errors:?}");
    }
    let (controls, errors) = calico(&[("ingressBandwidth", "2M"), ("ingressPeakrate", "2M")]);
    assert_eq!((controls.ingress_peakrate, errors.len()), (0, 1));
}

#[test]
fn calicos_words_go_before_those_of_kubernetes_and_these_before_the_runtimes() {
    let runtime = QosControls {
        ingress_bandwidth: 1_000_000,
        ingress_burst: 50_000,
        egress_bandwidth: 2_000_000,
        egress_burst: 60_000,
        ..QosControls::default()
    };
    let silent = read(&BTreeMap::new(), &runtime);
    assert_eq!(silent, (runtime.clone(), vec![]));
    let kubernetes = [("kubernetes.io/ingress-bandwidth", "3M")];
    let (controls, _) = read(&annotations(&kubernetes), &runtime);
    assert_eq!((controls.ingress_bandwidth, controls.ingress_burst), (3_000_000, 50_000));
    assert_eq!((controls.egress_bandwidth, controls.egress_burst), (2_000_000, 60_000));
    let both = [kubernetes[0], ("qos.projectcalico.org/ingressBandwidth", "4M")];
    let (controls, _) = read(&annotations(&both), &runtime);
    assert_eq!((controls.ingress_bandwidth, controls.ingress_burst), (4_000_000, DEFAULT_BURST));
    let bad = [kubernetes[0], ("qos.projectcalico.org/ingressBandwidth", "four")];
    let (controls, errors) = read(&annotations(&bad), &runtime);
    assert_eq!((controls.ingress_bandwidth, errors.len()), (0, 1), "as Calico has it");
}

#[test]
fn only_what_is_read_is_about_it() {
    for name in ["qos.projectcalico.org/dscp", "kubernetes.io/egress-bandwidth"] {
        assert!(is_about(name), "{name}");
    }
    for name in ["kubernetes.io/config.source", "cni.projectcalico.org/podIP", ""] {
        assert!(!is_about(name), "{name}");
    }
}

#[test]
fn code_points_have_names_and_numbers() {
    let number = |text: &str| {
        let (controls, errors) = calico(&[("dscp", text)]);
        assert_eq!(controls.dscp.is_none(), errors.len() == 1, "{text}");
        controls.dscp.and_then(|dscp| dscp.number())
    };
    for (text, expected) in
        [("EF", 46), ("ef", 46), ("AF43", 38), ("cs6", 48), ("DF", 0), ("63", 63)]
    {
        assert_eq!(number(text), Some(expected), "{text}");
    }
    for text in ["64", "-1", "CS7", "fast", ""] {
        assert_eq!(number(text), None, "{text}");
    }
    for (text, expected) in [("EF", Some(46)), ("64", None)] {
        let of_host = annotations(&[("qos.projectcalico.org/dscp", text)]);
        let (found, errors) = dscp(Some(&of_host));
        assert_eq!(found.and_then(|dscp| dscp.number()), expected);
        assert_eq!(errors.len(), usize::from(expected.is_none()));
    }
    let read = |json| serde_json::from_value::<Dscp>(json).unwrap();
    assert_eq!(read(serde_json::json!(12)).number(), Some(12));
    assert_eq!(read(serde_json::json!("AF12")).number(), Some(12));
    assert_eq!(read(serde_json::json!(64)).number(), None);
}
