//! CHECK, GC, STATUS and VERSION, other IPAM plugins, and what bad input is told.

mod rig;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use margay_cni_api::{CniError, Code, Readiness, Request};
use rig::call::REFERENCE_PLUGINS;
use rig::{Call, Fault, Netns, Node, text};
use serde_json::{Value, json};

const CHECK_FAILED: u64 = Code::CHECK_FAILED.0 as u64;

/// Adds a container and answers with its result.
fn added(node: &Node, container: &str, pod: &Netns) -> Value {
    node.call("ADD", container, &pod.path()).good()
}

#[test]
fn check_passes_after_add_in_every_version_that_has_it() {
    let node = Node::new();
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        let pod = Netns::new("pod");
        let call = |verb| node.call(verb, "c1", &pod.path()).set("cniVersion", json!(version));
        let result = call("ADD").good();
        call("CHECK").set("prevResult", result.clone()).good();
        pod.run("ip route add 192.0.2.0/24 via 169.254.1.1");
        call("CHECK").set("prevResult", result.clone()).good();
        call("DEL").set("prevResult", result).good();
    }
    let failure = node.call("CHECK", "c1", "/x").set("cniVersion", json!("0.3.1")).bad();
    assert_eq!(failure.code, 1);
    assert!(failure.msg.contains("CHECK"), "{failure:?}");
}

#[test]
fn check_without_prev_result_is_an_invalid_configuration() {
    let node = Node::new();
    let pod = Netns::new("pod");
    added(&node, "c1", &pod);
    let failure = node.call("CHECK", "c1", &pod.path()).bad();
    assert_eq!(failure.code, 7);
    assert!(failure.msg.contains("prevResult"), "{failure:?}");
}

#[test]
fn check_notices_whatever_is_missing() {
    type Damage = fn(&Node, &Netns);
    let damages: &[(&str, Damage)] = &[
        ("address 10.", |_, pod| drop(pod.run("ip address flush dev eth0"))),
        ("default route by 169.254.1.1", |_, pod| drop(pod.run("ip route delete default"))),
        ("is down", |_, pod| drop(pod.run("ip link set eth0 down"))),
        ("eth0 is missing", |_, pod| drop(pod.run("ip link set eth0 name gone"))),
        ("Ethernet address", |_, pod| drop(pod.run("ip link set eth0 address 02:00:00:00:00:01"))),
        ("host's end", |node, _| {
            drop(node.netns.run(&format!("ip link set {} alias x", node.host_ends()[0])))
        }),
        ("host's end", |node, _| {
            drop(node.netns.run(&format!("ip link set {} down", node.host_ends()[0])))
        }),
        ("host's end", |_, pod| drop(pod.run("ip link delete eth0"))),
        ("the reservation", |node, _| node.agent.lose_lease("c1")),
        ("the endpoint", |node, _| node.agent.lose_endpoint("c1")),
    ];
    for (named, damage) in damages {
        let node = Node::new();
        let pod = Netns::new("pod");
        let result = added(&node, "c1", &pod);
        damage(&node, &pod);
        let failure = node.call("CHECK", "c1", &pod.path()).set("prevResult", result).bad();
        assert_eq!(failure.code, CHECK_FAILED, "{failure:?}");
        assert!(failure.msg.contains(named), "{named}: {failure:?}");
    }
}

#[test]
fn gc_forgets_all_but_the_valid_attachments() {
    let node = Node::new();
    let pods: Vec<_> = (0..3).map(|_| Netns::new("pod")).collect();
    for (i, pod) in pods.iter().enumerate() {
        added(&node, &format!("c{i}"), pod);
    }
    let valid = json!([{"containerID": "c1", "ifname": "eth0"}]);
    let gc = || Call::new(&node.netns, "GC").config(node.config());
    assert_eq!(gc().set("cni.dev/valid-attachments", valid).good(), Value::Null);
    assert_eq!(node.agent.endpoints(), ["c1"]);
    assert_eq!(node.agent.leases(), ["c1"]);
    assert_eq!(node.host_ends().len(), 1);
    assert!(pods[1].link("eth0").is_some());
    // libcni leaves an empty list out.
    gc().good();
    node.assert_clean();
}

#[test]
fn gc_leaves_other_networks_alone() {
    let node = Node::new();
    let pod = Netns::new("pod");
    node.call("ADD", "c1", &pod.path()).set("name", json!("other")).good();
    Call::new(&node.netns, "GC").config(node.config()).good();
    assert!(pod.link("eth0").is_some());
    let [Request::GcEndpoints(told)] = &node.agent.requests("gcEndpoints")[..] else {
        panic!("one request");
    };
    assert_eq!(told.network, "margay");
}

#[test]
fn gc_goes_on_after_an_error_and_reports_it() {
    let node = Node::new();
    let pod = Netns::new("pod");
    added(&node, "c1", &pod);
    let broken = CniError::new(Code::IO, "the disk is full", "");
    node.agent.fault("gcEndpoints", Fault::Fail(broken));
    let failure = Call::new(&node.netns, "GC").config(node.config()).bad();
    assert!(failure.msg.contains("the disk is full"), "{failure:?}");
    assert_eq!(node.host_ends(), Vec::<String>::new());
    assert_eq!(node.agent.leases(), Vec::<String>::new());
}

#[test]
fn status_tells_what_the_agent_tells() {
    let node = Node::new();
    let status = || Call::new(&node.netns, "STATUS").config(node.config());
    assert_eq!(status().good(), Value::Null);
    let because = || "margayd is not connected; start it".to_owned();
    let cases = [
        (Readiness::NotReady { reason: because() }, Readiness::Ready, 50),
        (Readiness::Degraded { reason: because() }, Readiness::Ready, 51),
        (Readiness::Ready, Readiness::NotReady { reason: because() }, 50),
    ];
    for (endpoints, addresses, code) in cases {
        node.agent.state().readiness = endpoints;
        node.agent.state().address_readiness = addresses;
        let failure = status().bad();
        assert_eq!(failure.code, code);
        assert!(failure.msg.contains("margayd is not connected"), "{failure:?}");
    }
    node.agent.state().readiness = Readiness::Ready;
    status().without("CNI_PATH").good();
    node.agent.fault("status", Fault::Die);
    assert_eq!(status().bad().code, 50, "it dies");
    let failure = status().bad();
    assert_eq!(failure.code, 50, "it is dead");
    assert!(failure.msg.contains("agent.sock") && failure.details.contains("start"), "{failure:?}");
}

#[test]
fn an_add_without_an_agent_says_try_again_later_and_how() {
    let node = Node::new();
    let pod = Netns::new("pod");
    let elsewhere = node.folder().join("nobody.sock");
    let failure = node.call("ADD", "c1", &pod.path()).set("agentSocket", json!(elsewhere)).bad();
    assert_eq!(failure.code, 11);
    assert!(failure.msg.contains("nobody.sock"), "{failure:?}");
    assert!(failure.details.contains("start margay-agent"), "{failure:?}");
    assert_eq!(pod.link("eth0"), None);
}

#[test]
fn version_repeats_the_asked_version_and_lists_the_supported() {
    let node = Node::new();
    for executable in [env!("CARGO_BIN_EXE_margay-cni"), env!("CARGO_BIN_EXE_margay-ipam")] {
        for asked in ["0.2.0", "1.0.0", "1.1.0", "9.9.9"] {
            let call = Call::of(&node.netns, executable, "VERSION").variable("CNI_NETNS", "dummy");
            let answer = call.config(json!({"cniVersion": asked})).good();
            assert_eq!(answer["cniVersion"], asked);
            assert_eq!(answer["supportedVersions"], json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
        }
        let answer = Call::of(&node.netns, executable, "VERSION").good();
        assert_eq!(answer["cniVersion"], "1.1.0", "a probe without a configuration");
    }
}

#[test]
fn bad_input_gets_the_specifications_code_and_a_name() {
    let node = Node::new();
    let pod = Netns::new("pod");
    let add = || node.call("ADD", "c1", &pod.path());
    let cases: Vec<(Call, u64, &str)> = vec![
        (add().variable("CNI_COMMAND", "DESTROY"), 4, "CNI_COMMAND"),
        (add().without("CNI_COMMAND"), 4, "CNI_COMMAND"),
        (add().without("CNI_CONTAINERID"), 4, "CNI_CONTAINERID"),
        (add().without("CNI_NETNS").without("CNI_IFNAME"), 4, "CNI_NETNS, CNI_IFNAME"),
        (add().without("CNI_PATH"), 4, "CNI_PATH"),
        (add().variable("CNI_NETNS", "/run/netns/mgn-nowhere"), 4, "CNI_NETNS"),
        (add().variable("CNI_NETNS", "/etc/hostname"), 4, "CNI_NETNS"),
        (add().variable("CNI_NETNS", &node.netns.path()), 4, "the node's own"),
        (add().variable("CNI_CONTAINERID", "../x"), 4, "CNI_CONTAINERID"),
        (add().variable("CNI_IFNAME", "much-too-long-name"), 4, "CNI_IFNAME"),
        (add().variable("CNI_ARGS", "K8S_POD_NAMESPACE=a"), 4, "K8S_POD_NAME"),
        (add().variable("CNI_ARGS", "COLOUR=blue"), 4, "COLOUR"),
        (add().raw_config("{"), 6, "JSON"),
        (add().raw_config(""), 6, "JSON"),
        (add().set("cniVersion", json!("0.2.0")), 1, "0.2.0"),
        (add().set("cniVersion", json!("1.2.0")), 1, "1.2.0"),
        (add().set("cniVersion", json!(1)), 7, "cniVersion"),
        (add().set("name", json!("")), 7, "name"),
        (add().set("mtu", json!("big")), 7, "mtu"),
        (add().set("ipam", json!({})), 7, "ipam.type"),
        (add().set("ipam", json!({"type": "no-such-plugin"})), 7, "no-such-plugin"),
        (
            add().set("ipam", json!({"type": "margay-ipam", "assign_ipv4": "false"})),
            7,
            "assign_ipv4",
        ),
        (Call::new(&node.netns, "GC").without("CNI_PATH").config(node.config()), 4, "CNI_PATH"),
        (
            Call::new(&node.netns, "GC").config(node.config()).set("cniVersion", json!("1.0.0")),
            1,
            "GC",
        ),
        (
            Call::new(&node.netns, "STATUS")
                .config(node.config())
                .set("cniVersion", json!("0.4.0")),
            1,
            "STATUS",
        ),
    ];
    for (call, code, named) in cases {
        let said = format!("{call:?}");
        let failure = call.bad();
        assert_eq!(failure.code, code, "{failure:?} to {said}");
        assert!(failure.msg.contains(named), "{named}: {failure:?}");
        assert!(!failure.details.is_empty(), "says what to do: {failure:?}");
    }
    node.assert_clean();
}

#[test]
fn an_error_carries_the_configurations_version() {
    let node = Node::new();
    let output = node.call("CHECK", "c1", "/x").set("cniVersion", json!("0.4.0")).output();
    let error: Value = serde_json::from_slice(&output.stdout).expect("an error object");
    assert_eq!(error["cniVersion"], "0.4.0");
}

#[test]
fn the_ipam_plugin_works_by_itself() {
    let node = Node::new();
    let ipam = env!("CARGO_BIN_EXE_margay-ipam");
    let mut config = node.config();
    config["ipam"] = json!({
        "type": "margay-ipam", "assign_ipv6": true, "ipv4_pools": ["blue"], "ipv6_pools": ["fd00::/64"],
    });
    config["args"] = json!({"cni": {"ips": ["10.65.0.9"]}});
    let call = |verb: &str| {
        Call::of(&node.netns, ipam, verb)
            .variable("CNI_CONTAINERID", "c1")
            .variable("CNI_NETNS", "/run/netns/x")
            .variable("CNI_IFNAME", "eth0")
            .variable("CNI_ARGS", "IP=10.65.0.9")
            .config(config.clone())
    };
    for (version, versions) in
        [("0.3.1", [json!("4"), json!("6")]), ("1.1.0", [Value::Null, Value::Null])]
    {
        let result = call("ADD").set("cniVersion", json!(version)).good();
        assert_eq!(result.get("interfaces"), None, "an IPAM plugin has none");
        assert_eq!(
            [&result["ips"][0]["version"], &result["ips"][1]["version"]],
            [&versions[0], &versions[1]]
        );
        assert!(text(&result["ips"][1]["address"]).ends_with("/128"));
    }
    let [Request::Allocate(told), _] = &node.agent.requests("allocate")[..] else {
        panic!("two requests");
    };
    assert_eq!(
        (&told.ipv4_pools[..], &told.ipv6_pools[..]),
        (&["blue".to_owned()][..], &["fd00::/64".to_owned()][..])
    );
    assert_eq!(told.ips.len(), 1, "an address asked for twice is asked for once");
    let result = call("ADD").good();
    call("CHECK").set("prevResult", result.clone()).good();
    call("STATUS").good();
    call("DEL").set("prevResult", result.clone()).good();
    call("DEL").good();
    assert_eq!(call("CHECK").set("prevResult", result).bad().code, CHECK_FAILED);
    call("ADD").good();
    call("GC").set("cni.dev/valid-attachments", json!([])).good();
    assert_eq!(node.agent.leases(), Vec::<String>::new());
}

#[test]
fn calicos_ipam_type_means_ours() {
    let node = Node::new();
    let pod = Netns::new("pod");
    node.call("ADD", "c1", &pod.path()).set("ipam", json!({"type": "calico-ipam"})).good();
    assert_eq!(node.agent.leases(), ["c1"]);
}

/// host-local keeps its reservations in files of this folder's sub-folder `margay`.
fn host_local(node: &Node) -> Value {
    let there = std::path::Path::new(REFERENCE_PLUGINS).join("host-local").exists();
    assert!(there, "this test runs host-local of the package containernetworking-plugins");
    let mut config = node.config();
    config["ipam"] = json!({
        "type": "host-local", "dataDir": node.folder().join("ipam"),
        "ranges": [[{"subnet": "usePodCidr"}], [{"subnet": "usePodCidrIPv6"}]],
    });
    config
}

/// Names of the files in which host-local keeps addresses.
fn reservations(node: &Node) -> Vec<String> {
    let folder = node.folder().join("ipam/margay");
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = files.filter_map(|file| file.file_name().into_string().ok()).collect();
    names.retain(|name| name.contains("77"));
    names.sort();
    names
}

#[test]
fn host_local_assigns_from_the_nodes_pod_cidrs() {
    let node = Node::new();
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let pod = Netns::new("pod");
        let call = |verb| {
            node.call(verb, "c1", &pod.path())
                .config(host_local(&node))
                .set("cniVersion", json!(version))
        };
        let result = call("ADD").good();
        let addresses: Vec<_> = result["ips"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|ip| text(&ip["address"]))
            .collect();
        assert!(
            addresses[0].starts_with("10.77.0.") && addresses[0].ends_with("/32"),
            "{addresses:?}"
        );
        assert!(
            addresses[1].starts_with("fd00:77::") && addresses[1].ends_with("/128"),
            "{addresses:?}"
        );
        assert_eq!(pod.addresses("eth0"), addresses);
        assert_eq!(reservations(&node).len(), 2);
        if version != "0.3.1" {
            call("CHECK").set("prevResult", result.clone()).good();
        }
        call("DEL").set("prevResult", result).good();
        call("DEL").good();
        assert_eq!(reservations(&node), Vec::<String>::new(), "{version}");
    }
}

#[test]
fn host_local_is_released_when_an_add_fails() {
    let node = Node::new();
    let pod = Netns::new("pod");
    node.agent.fault("addEndpoint", Fault::Die);
    let failure = node.call("ADD", "c1", &pod.path()).config(host_local(&node)).bad();
    assert_eq!(failure.code, 11);
    assert_eq!(reservations(&node), Vec::<String>::new());
    assert_eq!(pod.link("eth0"), None);
    assert_eq!(node.host_ends(), Vec::<String>::new());
}

#[test]
fn an_older_ipam_plugin_is_spared_verbs_that_it_does_not_know() {
    let node = Node::new();
    Call::new(&node.netns, "STATUS").config(host_local(&node)).good();
    Call::new(&node.netns, "GC").config(host_local(&node)).good();
}

/// An IPAM plugin in shell that notes its verbs and then runs `body`.
fn scripted_ipam(node: &Node, body: &str) -> (String, std::path::PathBuf) {
    let folder = node.folder().join("bin");
    fs::create_dir_all(&folder).expect("a folder");
    let (script, notes) = (folder.join("scripted"), folder.join("notes"));
    let text =
        format!("#!/bin/sh\necho $CNI_COMMAND >> {}\ncat > /dev/null\n{body}\n", notes.display());
    fs::write(&script, text).expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("executable");
    (folder.display().to_string(), notes)
}

#[test]
fn a_delegate_whose_add_fails_gets_its_del() {
    let node = Node::new();
    let pod = Netns::new("pod");
    let bodies = [
        (
            r#"[ $CNI_COMMAND = ADD ] && { echo '{"cniVersion":"1.1.0","code":123,"msg":"no luck"}'; exit 1; }"#,
            123,
            "no luck",
        ),
        ("[ $CNI_COMMAND = ADD ] && { echo oops; exit 3; }", 5, "oops"),
        ("[ $CNI_COMMAND = ADD ] && echo nonsense", 6, "JSON"),
        (r#"[ $CNI_COMMAND = ADD ] && echo '{"cniVersion":"1.1.0","ips":[]}'"#, 102, "no address"),
    ];
    for (body, code, named) in bodies {
        let (path, notes) = scripted_ipam(&node, &format!("{body}\nexit 0"));
        let _ = fs::remove_file(&notes);
        let call = node.call("ADD", "c1", &pod.path()).variable("CNI_PATH", &path);
        let failure = call.set("ipam", json!({"type": "scripted"})).bad();
        assert_eq!(failure.code, code, "{failure:?}");
        assert!(failure.msg.contains(named) && failure.msg.contains("scripted"), "{failure:?}");
        assert_eq!(fs::read_to_string(&notes).expect("notes"), "ADD\nDEL\n");
        assert_eq!(pod.link("eth0"), None);
        node.assert_clean();
    }
}

#[test]
fn the_log_goes_to_its_file_and_never_to_standard_output() {
    let node = Node::new();
    let pod = Netns::new("pod");
    let file = node.folder().join("log/cni.log");
    let output = node
        .call("ADD", "c1", &pod.path())
        .set("log_level", json!("Debug"))
        .set("log_file_path", json!(file))
        .output();
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let log = fs::read_to_string(&file).expect("a log");
    assert!(log.contains("verb=ADD") && log.contains("container=\"c1\""), "{log}");
}

#[test]
fn a_copy_whose_name_ends_in_ipam_is_the_ipam_plugin() {
    let node = Node::new();
    let copy = node.folder().join("calico-ipam");
    fs::copy(env!("CARGO_BIN_EXE_margay-cni"), &copy).expect("a copy");
    let executable = copy.to_str().expect("utf-8");
    let result = Call::of(&node.netns, executable, "ADD")
        .variable("CNI_CONTAINERID", "c1")
        .variable("CNI_NETNS", "/run/netns/x")
        .variable("CNI_IFNAME", "eth0")
        .config(node.config())
        .good();
    assert_eq!(result.get("interfaces"), None);
}
