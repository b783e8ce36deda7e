//! ADD and DEL in real namespaces: what the container gets, when, and what is left afterwards.

mod rig;

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use margay_cni_api::{CniError, Code, Request};
use rig::call::Failure;
use rig::{Fault, Netns, Node, text};
use serde_json::{Value, json};

/// `printf prod.c1 | sha1sum`, its first 11 digits.
const HOST_NAME: &str = "cali3aeaff38e65";

fn dual_stack(node: &Node) -> Value {
    let mut config = node.config();
    config["ipam"] = json!({"type": "margay-ipam", "assign_ipv4": "true", "assign_ipv6": "true"});
    config
}

#[test]
fn add_answers_in_the_shape_of_every_version() {
    let node = Node::new();
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let pod = Netns::new("pod");
        let add = node.call("ADD", "c1", &pod.path()).set("cniVersion", json!(version));
        let result = add.good();
        assert_eq!(result["cniVersion"], version);
        let [host, inside] = result["interfaces"].as_array().expect("a list").as_slice() else {
            panic!("two interfaces: {result}");
        };
        assert_eq!(
            (text(&host["name"]), text(&host["mac"])),
            (HOST_NAME.into(), "ee:ee:ee:ee:ee:ee".into())
        );
        assert_eq!(host.get("sandbox"), None);
        assert_eq!((text(&inside["name"]), text(&inside["sandbox"])), ("eth0".into(), pod.path()));
        assert_eq!(inside["mac"], pod.link("eth0").expect("eth0")["address"]);
        let [ip] = result["ips"].as_array().expect("a list").as_slice() else {
            panic!("one address: {result}");
        };
        assert_eq!(ip["interface"], 1);
        assert!(
            text(&ip["address"]).starts_with("10.65.0.") && text(&ip["address"]).ends_with("/32")
        );
        let old = ["0.3.1", "0.4.0"].contains(&version);
        assert_eq!(ip["version"], if old { json!("4") } else { Value::Null }, "{version}");
        assert_eq!(inside["mtu"], if version == "1.1.0" { json!(1450) } else { Value::Null });
        node.call("DEL", "c1", &pod.path())
            .set("cniVersion", json!(version))
            .set("prevResult", result)
            .good();
        node.assert_clean();
    }
}

#[test]
fn both_families_work_at_once_and_both_gateways_are_known() {
    let node = Node::new();
    let pod = Netns::new("pod");
    pod.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
    let result = node.call("ADD", "c1", &pod.path()).config(dual_stack(&node)).good();
    assert_eq!(pod.addresses("eth0"), ["10.65.0.1/32", "fd00:65::1/128"]);
    let tentative = pod.run("ip -6 address show dev eth0 tentative");
    assert_eq!(tentative, "", "addresses are usable when ADD returns");
    assert_eq!(
        pod.run("ip route").lines().map(str::trim_end).collect::<Vec<_>>(),
        ["default via 169.254.1.1 dev eth0", "169.254.1.1 dev eth0 scope link",]
    );
    let v6 = pod.run("ip -6 route show default");
    assert!(v6.starts_with("default via fe80::ecee:eeff:feee:eeee dev eth0"), "{v6}");
    let mut neighbours = pod.json("ip -j neighbour show nud permanent");
    neighbours.sort_by_key(|neighbour| text(&neighbour["dst"]));
    let known: Vec<_> = neighbours.iter().map(|n| (text(&n["dst"]), text(&n["lladdr"]))).collect();
    assert_eq!(
        known,
        [
            ("169.254.1.1".into(), "ee:ee:ee:ee:ee:ee".into()),
            ("fe80::ecee:eeff:feee:eeee".into(), "ee:ee:ee:ee:ee:ee".to_string()),
        ]
    );
    let gateways: Vec<_> =
        result["routes"].as_array().expect("a list").iter().map(|r| text(&r["gw"])).collect();
    assert_eq!(gateways, ["169.254.1.1", "fe80::ecee:eeff:feee:eeee"]);
    assert_eq!(pod.sysctl("ipv4/ip_forward"), "0");
    assert_eq!(pod.sysctl("ipv6/conf/all/forwarding"), "0");
    assert_eq!(pod.sysctl("ipv6/conf/eth0/accept_dad"), "0");
}

#[test]
fn a_container_forwards_only_where_its_settings_let_it() {
    let node = Node::new();
    let pod = Netns::new("pod");
    let settings = json!({"allow_ip_forwarding": "true"});
    node.call("ADD", "c1", &pod.path())
        .config(dual_stack(&node))
        .set("container_settings", settings)
        .good();
    assert_eq!(pod.sysctl("ipv4/ip_forward"), "1");
    assert_eq!(pod.sysctl("ipv6/conf/all/forwarding"), "1");
}

#[test]
fn the_host_end_is_up_without_an_address_of_its_own() {
    let node = Node::new();
    let pod = Netns::new("pod");
    node.call("ADD", "c1", &pod.path()).config(dual_stack(&node)).good();
    let link = node.netns.link(HOST_NAME).expect("the host's end");
    assert_eq!(link["address"], "ee:ee:ee:ee:ee:ee");
    assert_eq!(link["operstate"], "UP");
    assert_eq!(link["mtu"], 1450);
    assert_eq!(link["ifalias"], "margay/margay/eth0/c1");
    assert_eq!(
        node.netns.run(&format!("ip address show dev {HOST_NAME}")).matches("inet").count(),
        0
    );
    assert_eq!(
        node.netns.sysctl("ipv4/ip_forward"),
        "0",
        "no forwarding sysctl of the node changes"
    );
}

#[test]
fn the_pods_end_is_down_until_the_policy_is_in_force() {
    let node = Node::new();
    let pod = Netns::new("pod");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (witnessed, name) = (Arc::clone(&seen), pod.name().to_owned());
    node.agent.witness(move |request| {
        if let Request::AddEndpoint(_) = request {
            let output = std::process::Command::new("ip")
                .args(["-n", &name, "-j", "address", "show", "dev", "eth0"])
                .output()
                .expect("ip");
            let links: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            witnessed.lock().expect("a lock").push(links[0].clone());
        }
    });
    node.call("ADD", "c1", &pod.path()).good();
    let seen = seen.lock().expect("a lock");
    let [before] = seen.as_slice() else { panic!("one AddEndpoint: {seen:?}") };
    assert_eq!(before["operstate"], "DOWN");
    assert!(!before["flags"].as_array().expect("flags").contains(&json!("UP")));
    assert_eq!(before["addr_info"][0]["local"], "10.65.0.1", "all but up");
    assert_eq!(pod.link("eth0").expect("eth0")["operstate"], "UP");
}

#[test]
fn the_agent_is_told_everything_about_the_endpoint() {
    let node = Node::new();
    let pod = Netns::new("pod");
    let args = "K8S_POD_NAMESPACE=prod;K8S_POD_NAME=c1;K8S_POD_UID=u-1";
    node.call("ADD", "c1", &pod.path()).variable("CNI_ARGS", args).good();
    let [Request::AddEndpoint(told)] = &node.agent.requests("addEndpoint")[..] else {
        panic!("one request");
    };
    assert_eq!(told.attachment.handle(), "margay.c1");
    assert_eq!((told.workload.namespace.as_str(), told.workload.pod.as_str()), ("prod", "c1"));
    assert_eq!(told.workload.uid, "u-1");
    assert_eq!(told.host_interface, HOST_NAME);
    assert_eq!(told.netns, pod.path());
    assert_eq!(told.mtu, 1450);
    assert_eq!(told.addresses, ["10.65.0.1".parse::<IpAddr>().expect("an address")]);
    assert_eq!(told.mac.to_string(), text(&pod.link("eth0").expect("eth0")["address"]));
}

#[test]
fn the_plan_decides_mtu_mac_queues_and_offloads() {
    let node = Node::new();
    let pod = Netns::new("pod");
    {
        let mut state = node.agent.state();
        state.plan.mtu = 8950;
        state.plan.queues = 2;
        state.plan.tx_checksum_offload = false;
        state.plan.mac = Some("02:11:22:33:44:55".parse().expect("an address"));
    }
    node.call("ADD", "c1", &pod.path()).good();
    let link = pod.link("eth0").expect("eth0");
    assert_eq!((&link["mtu"], &link["address"]), (&json!(8950), &json!("02:11:22:33:44:55")));
    assert_eq!((&link["num_tx_queues"], &link["num_rx_queues"]), (&json!(2), &json!(2)));
    assert!(pod.feature("eth0", "generic-receive-offload"));
    assert!(!pod.feature("eth0", "tx-checksum-ip-generic"));
    assert!(!pod.feature("eth0", "tx-tcp-segmentation"), "it needs the checksum");
}

#[test]
fn checksums_may_be_left_to_what_is_behind_the_pair() {
    let node = Node::new();
    let pod = Netns::new("pod");
    node.call("ADD", "c1", &pod.path()).good();
    assert!(pod.feature("eth0", "generic-receive-offload"));
    assert!(pod.feature("eth0", "tx-checksum-ip-generic"));
}

#[test]
fn a_pod_with_addresses_of_its_own_asks_no_ipam() {
    let node = Node::new();
    let pod = Netns::new("pod");
    node.agent.state().plan.addresses = vec!["10.9.8.7".parse().expect("an address")];
    let result = node.call("ADD", "c1", &pod.path()).good();
    assert_eq!(result["ips"][0]["address"], "10.9.8.7/32");
    assert_eq!(node.agent.leases(), Vec::<String>::new());
    node.call("CHECK", "c1", &pod.path()).set("prevResult", result).good();
}

#[test]
fn an_earlier_plugins_result_is_kept_and_indices_follow() {
    let node = Node::new();
    let pod = Netns::new("pod");
    let earlier = json!({
        "cniVersion": "1.1.0", "interfaces": [{"name": "x0", "sandbox": pod.path()}],
        "ips": [{"address": "10.1.1.1/24", "interface": 0}], "dns": {"nameservers": ["10.96.0.10"]},
    });
    let result = node.call("ADD", "c1", &pod.path()).set("prevResult", earlier).good();
    let names: Vec<_> =
        result["interfaces"].as_array().expect("a list").iter().map(|i| text(&i["name"])).collect();
    assert_eq!(names, ["x0", HOST_NAME, "eth0"]);
    assert_eq!(result["ips"][0]["interface"], 0);
    assert_eq!(result["ips"][1]["interface"], 2);
    assert_eq!(result["dns"]["nameservers"][0], "10.96.0.10");
}

#[test]
fn a_container_without_kubernetes_is_a_workload_by_its_own_id() {
    let node = Node::new();
    let pod = Netns::new("pod");
    node.call("ADD", "default-c1", &pod.path()).without("CNI_ARGS").good();
    let [Request::AddEndpoint(told)] = &node.agent.requests("addEndpoint")[..] else {
        panic!("one request");
    };
    assert_eq!(
        (told.workload.namespace.as_str(), told.workload.pod.as_str()),
        ("default", "default-c1")
    );
    // ctr calls DEL with an empty CNI_NETNS while the namespace may still exist.
    node.call("DEL", "default-c1", "").without("CNI_ARGS").good();
    node.assert_clean();
    assert_eq!(pod.link("eth0"), None);
}

#[test]
fn an_interface_that_exists_is_an_error_and_stays_as_it_is() {
    let node = Node::new();
    let pod = Netns::new("pod");
    node.call("ADD", "c1", &pod.path()).good();
    let before = pod.link("eth0");
    let failure = node.call("ADD", "c1", &pod.path()).bad();
    assert_eq!(failure.code, u64::from(Code::INTERFACE_EXISTS.0));
    assert!(failure.msg.contains("eth0"), "{failure:?}");
    assert_eq!(pod.link("eth0"), before);
    assert_eq!(node.agent.leases(), ["c1"]);

    let other = Netns::new("pod");
    other.run("ip link add eth0 type veth peer name other");
    let failure = node.call("ADD", "c2", &other.path()).bad();
    assert_eq!(failure.code, u64::from(Code::INTERFACE_EXISTS.0));
    assert!(other.link("eth0").is_some());
    assert_eq!(node.agent.leases(), ["c1"], "nothing was made before the name was looked at");
}

#[test]
fn what_a_killed_add_left_is_replaced() {
    let node = Node::new();
    let pod = Netns::new("pod");
    node.agent.fault("addEndpoint", Fault::Hang);
    let mut child = node.call("ADD", "c1", &pod.path()).spawn();
    while node.agent.requests("addEndpoint").is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().expect("kill -9");
    child.wait().expect("it ends");
    assert!(pod.link("eth0").is_some(), "the pair is left over");
    node.agent.state().faults.clear();
    let result = node.call("ADD", "c1", &pod.path()).good();
    assert_eq!(pod.link("eth0").expect("eth0")["address"], result["interfaces"][1]["mac"]);
    assert_eq!(node.host_ends(), [HOST_NAME]);
    node.call("DEL", "c1", &pod.path()).good();
    node.assert_clean();
}

#[test]
fn an_add_that_fails_at_any_step_leaves_nothing() {
    let node = Node::new();
    let pod = Netns::new("pod");
    for request in ["planEndpoint", "allocate", "addEndpoint"] {
        let error =
            CniError::new(Code::TRY_AGAIN_LATER, "the policy is not in force", "is margayd up?");
        node.agent.fault(request, Fault::Fail(error));
        let failure = node.call("ADD", "c1", &pod.path()).bad();
        assert_eq!(failure.code, 11, "{request}: {failure:?}");
        assert!(failure.msg.contains("the policy is not in force"), "{failure:?}");
        assert_eq!(failure.details, "is margayd up?");
        node.assert_clean();
        assert_eq!(pod.link("eth0"), None);
        node.agent.state().faults.clear();
    }
    // The very last step: the pod's end cannot get its route.
    pod.run("ip link add other type veth peer name another");
    pod.run("ip link set other up");
    pod.run("ip link set another up");
    pod.run("ip route add default dev other");
    let failure = node.call("ADD", "c1", &pod.path()).bad();
    assert_eq!(failure.code, 5, "{failure:?}");
    node.assert_clean();
    assert_eq!(pod.link("eth0"), None);
}

#[test]
fn an_agent_that_dies_in_mid_add_leaves_nothing_once_it_is_back() {
    let node = Node::new();
    for request in ["allocate", "addEndpoint"] {
        let pod = Netns::new("pod");
        node.agent.fault(request, Fault::Die);
        let failure = node.call("ADD", "c1", &pod.path()).bad();
        assert_eq!(failure.code, 11, "{failure:?}");
        assert_eq!(node.host_ends(), Vec::<String>::new(), "the pair needs no agent");
        assert_eq!(pod.link("eth0"), None);
        let failure = node.call("DEL", "c1", &pod.path()).bad();
        assert_eq!(failure.code, 11, "the runtime is to call again: {failure:?}");
        node.agent.state().faults.clear();
        node.agent.listen();
        node.call("DEL", "c1", &pod.path()).good();
        node.assert_clean();
    }
}

#[test]
fn del_succeeds_three_times_whatever_is_gone() {
    let node = Node::new();
    let pod = Netns::new("pod");
    let result = node.call("ADD", "c1", &pod.path()).good();
    let del = |netns: &str| node.call("DEL", "c1", netns);
    assert_eq!(
        del(&pod.path()).set("prevResult", result).good(),
        Value::Null,
        "DEL prints nothing"
    );
    node.assert_clean();
    assert_eq!(pod.link("eth0"), None);
    del("").good();
    del("").without("CNI_NETNS").good();

    let pod = Netns::new("pod");
    node.call("ADD", "c1", &pod.path()).good();
    let path = pod.path();
    drop(pod);
    del(&path).good();
    del(&path).good();
    del("/run/netns/mgn-never-was").good();
    node.assert_clean();
    node.call("DEL", "never-added", "").good();
}

#[test]
fn del_leaves_the_pods_next_sandbox_alone() {
    let node = Node::new();
    let (old, new) = (Netns::new("old"), Netns::new("new"));
    let args = "K8S_POD_NAMESPACE=prod;K8S_POD_NAME=web";
    node.call("ADD", "old", &old.path()).variable("CNI_ARGS", args).good();
    node.call("ADD", "new", &new.path()).variable("CNI_ARGS", args).good();
    node.call("DEL", "old", &old.path()).variable("CNI_ARGS", args).good();
    assert_eq!(node.host_ends().len(), 1);
    assert_eq!(new.link("eth0").expect("eth0")["operstate"], "UP");
    assert_eq!(node.agent.endpoints(), ["new"]);
    node.call("DEL", "new", "").variable("CNI_ARGS", args).good();
    node.assert_clean();
}

#[test]
fn a_second_interface_is_refused_in_another_network_too() {
    let node = Node::new();
    let pod = Netns::new("pod");
    node.call("ADD", "c1", &pod.path()).good();
    for network in ["margay", "blue"] {
        let second = node.call("ADD", "c1", &pod.path()).variable("CNI_IFNAME", "net1");
        let failure = second.set("name", json!(network)).bad();
        assert_eq!(failure.code, u64::from(Code::INTERFACE_EXISTS.0));
        assert_eq!(pod.link("eth0").expect("eth0")["operstate"], "UP");
    }
    assert_eq!(node.agent.endpoints(), ["c1"]);
}

#[test]
fn many_containers_are_added_at_once() {
    let node = Node::new();
    let pods: Vec<_> = (0..12).map(|_| Netns::new("pod")).collect();
    let children: Vec<_> = pods
        .iter()
        .enumerate()
        .map(|(i, pod)| node.call("ADD", &format!("c{i}"), &pod.path()).spawn())
        .collect();
    for child in children {
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    assert_eq!(node.host_ends().len(), 12);
    assert_eq!(node.agent.endpoints().len(), 12);
}

#[test]
fn of_many_adds_of_one_container_one_succeeds() {
    let node = Node::new();
    let pod = Netns::new("pod");
    let children: Vec<_> = (0..6).map(|_| node.call("ADD", "c1", &pod.path()).spawn()).collect();
    let outputs: Vec<_> =
        children.into_iter().map(|child| child.wait_with_output().expect("it ends")).collect();
    let (good, bad): (Vec<_>, Vec<_>) = outputs.iter().partition(|output| output.status.success());
    assert_eq!(good.len(), 1);
    for output in bad {
        assert_eq!(Failure::of(output).code, u64::from(Code::INTERFACE_EXISTS.0));
    }
    assert_eq!(pod.link("eth0").expect("eth0")["operstate"], "UP");
    assert_eq!(node.agent.endpoints(), ["c1"]);
    assert_eq!(node.agent.leases(), ["c1"]);
}
