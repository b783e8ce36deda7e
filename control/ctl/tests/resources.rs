//! The verbs for objects, on a directory.

mod common;

use common::Store;
use serde_json::{Value, json};

const POLICY: &str = "\
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, labels: {team: a}}
spec:
  selector: app == 'web'
  ingress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}]
";

const POOL: &str = "\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pool}
spec: {cidr: 10.0.0.0/16, vxlanMode: Always}
";

#[test]
fn applied_objects_lie_beside_other_documents_and_are_found_again() {
    let store = Store::with("apiVersion: v1\nkind: Namespace\nmetadata: {name: prod}\n");
    let both = format!("{POLICY}---\n{POOL}");
    let said = store.good("apply -n prod -f -", &both);
    assert_eq!(
        said,
        "NetworkPolicy.projectcalico.org prod/web created\nIPPool.projectcalico.org pool created\n"
    );
    assert_eq!(store.files(), ["all.yaml", "ippool-pool.yaml", "networkpolicy-prod-web.yaml"]);
    let policy = store.json("get networkpolicy web -n prod");
    assert_eq!(policy["spec"]["selector"], "app == 'web'");
    assert_eq!(policy["metadata"]["namespace"], "prod");
    assert!(policy["metadata"]["resourceVersion"].is_string());
    assert!(store.good("apply -n prod -f -", &both).contains("prod/web unchanged"));
    assert_eq!(store.json("get namespaces")["items"][0]["metadata"]["name"], "prod");
}

#[test]
fn a_kind_is_known_by_singular_plural_and_short_name() {
    let store = Store::with(POLICY);
    for name in ["networkpolicy", "NetworkPolicies", "np", "networkpolicies.projectcalico.org"] {
        assert_eq!(store.good(&format!("get {name} -o name"), ""), "networkpolicy/web\n");
    }
    assert_eq!(store.good("get np/web -o name", ""), "networkpolicy/web\n");
    let errors = store.bad("get nonsense", "");
    assert!(errors.contains("nonsense") && errors.contains("globalnetworkpolicy"), "{errors}");
}

#[test]
fn objects_are_listed_in_one_namespace_or_in_all() {
    let store = Store::empty();
    store.good("apply -n one -f -", POLICY);
    store.good("apply -n two -f -", POLICY);
    assert_eq!(store.json("get np")["items"], json!([]));
    assert_eq!(store.json("get np -n two")["items"].as_array().unwrap().len(), 1);
    for all in ["--all-namespaces", "-a", "-A"] {
        let table = store.good(&format!("get np {all}"), "");
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["NAMESPACE", "NAME", "TIER"]);
        assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["one", "web", "default"]);
        assert_eq!(lines.len(), 3);
    }
    let list = store.json("get np -A");
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&json!("NetworkPolicyList"), &json!("projectcalico.org/v3"))
    );
}

#[test]
fn wide_tables_have_more_columns_and_yaml_can_be_applied_again() {
    let store = Store::with(POOL);
    let (table, wide) = (store.good("get ippools", ""), store.good("get ippools -o wide", ""));
    assert!(!table.contains("VXLANMODE") && wide.contains("VXLANMODE"), "{table}{wide}");
    let yaml = store.good("get ippool pool -o yaml", "");
    assert!(store.good("apply -f -", &yaml).contains("unchanged"));
    let lists = store.good("get ippool -o yaml", "");
    assert!(store.good("apply -f -", &lists).contains("unchanged"));
}

#[test]
fn create_and_replace_insist_on_what_is_there_and_apply_does_not() {
    let store = Store::empty();
    let errors = store.bad("replace -f -", POOL);
    assert!(errors.contains("pool does not exist"), "{errors}");
    assert!(store.good("create -f -", POOL).ends_with("pool created\n"));
    let errors = store.bad("create -f -", POOL);
    assert!(errors.contains("pool exists already; use apply or replace"), "{errors}");
    store.good("create --skip-exists -f -", POOL);
    let changed = POOL.replace("Always", "Never");
    assert!(store.good("replace -f -", &changed).ends_with("pool replaced\n"));
    assert_eq!(store.json("get ippool pool")["spec"]["vxlanMode"], "Never");
}

#[test]
fn an_old_version_does_not_overwrite_a_newer_one() {
    let store = Store::with(POOL);
    let old = store.good("get ippool pool -o yaml", "");
    store.good("label ippool pool a=b", "");
    let errors = store.bad("replace -f -", &old);
    assert!(
        errors.contains("changed by somebody else") && errors.contains("get it again"),
        "{errors}"
    );
}

#[test]
fn only_the_changed_document_of_a_file_is_rewritten() {
    let store = Store::with(&format!("# the pool\n{POOL}---\n# the policy\n{POLICY}"));
    store.good(r#"patch np web -p {"spec":{"order":7}}"#, "");
    let text = std::fs::read_to_string(store.dir.path().join("all.yaml")).unwrap();
    assert!(text.starts_with(&format!("# the pool\n{POOL}---\n# the policy\n")), "{text}");
    assert!(text.contains("order: 7"), "{text}");
    store.good("delete np web", "");
    let text = std::fs::read_to_string(store.dir.path().join("all.yaml")).unwrap();
    assert_eq!(text.trim_end_matches("---\n"), format!("# the pool\n{POOL}"));
}

#[test]
fn of_a_list_only_the_object_that_is_named_changes() {
    // As `kubectl get -o yaml` writes them; a typed list's items may leave out what they are.
    let crd = "apiVersion: v1\nkind: List\nitems:\n\
        - {apiVersion: crd.projectcalico.org/v1, kind: NetworkPolicy, metadata: {name: a}, spec: {}}\n\
        - {apiVersion: crd.projectcalico.org/v1, kind: NetworkPolicy, metadata: {name: a, \
           namespace: prod}, spec: {}}\n";
    let typed = "apiVersion: projectcalico.org/v3\nkind: NetworkPolicyList\nitems:\n\
        - {metadata: {name: a}, spec: {}}\n- {metadata: {name: a, namespace: prod}, spec: {}}\n";
    for list in [crd, typed] {
        let store = Store::with(list);
        let names = || store.good("get np -A -o name", "");
        let both = names();
        store.good(r#"patch np a -n prod -p {"spec":{"order":7}}"#, "");
        assert_eq!(names(), both);
        assert_eq!(store.json("get np a -n prod")["spec"]["order"], 7);
        assert_eq!(store.json("get np a")["spec"]["order"], Value::Null);
        store.good("delete np a -n prod", "");
        assert_eq!(names().lines().count(), 1, "{list}");
        store.json("get np a");
        store.good("delete np a", "");
        assert_eq!(names(), "");
    }
}

#[test]
fn patches_of_each_type_change_what_they_name() {
    let store = Store::with(POLICY);
    store.good(r#"patch networkpolicy web --patch {"spec":{"order":1.5}}"#, "");
    store.good(r#"patch np web --type merge -p {"spec":{"ingress":null}}"#, "");
    store.good(
        r#"patch np web -t json -p [{"op":"add","path":"/spec/types","value":["Egress"]}]"#,
        "",
    );
    let spec = &store.json("get np web")["spec"];
    assert_eq!(*spec, json!({"order": 1.5, "selector": "app == 'web'", "types": ["Egress"]}));
}

#[test]
fn a_patch_that_makes_no_good_object_changes_nothing() {
    let store = Store::with(POLICY);
    for (patch, part) in [
        (r#"{"spec":{"selector":"app=="}}"#, "spec.selector"),
        (r#"{"spec":{"colour":"red"}}"#, "spec.colour"),
        (r#"{"metadata":{"name":"other"}}"#, "cannot be changed"),
        ("{", "the patch does not fit"),
    ] {
        let errors = store.bad(&format!("patch np web -p {patch}"), "");
        assert!(errors.contains("default/web") && errors.contains(part), "{patch}: {errors}");
    }
    assert_eq!(store.json("get np web")["spec"]["selector"], "app == 'web'");
}

#[test]
fn a_label_is_set_overwritten_on_demand_and_removed() {
    let store = Store::with(POLICY);
    store.good("label np web tier=back", "");
    let errors = store.bad("label np web tier=front", "");
    assert!(errors.contains("--overwrite"), "{errors}");
    store.good("label np web tier=front --overwrite", "");
    store.good("label np web team --remove", "");
    assert_eq!(store.json("get np web")["metadata"]["labels"], json!({"tier": "front"}));
    let errors = store.bad("label np web team --remove", "");
    assert!(errors.contains("no label team"), "{errors}");
    store.bad("label np web team", "");
}

#[test]
fn a_tier_that_is_built_in_or_that_policies_stand_in_is_not_deleted() {
    let store = Store::with("");
    store.good(
        "apply -f -",
        "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: x}\nspec: {order: 5}\n---\n\
         apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: x.p}\n\
         spec: {tier: x, types: [Ingress]}\n",
    );
    assert!(store.bad("delete tier x", "").contains("GlobalNetworkPolicy"));
    store.good("get tier x", "");
    store.good("delete gnp x.p", "");
    store.good("delete tier x", "");
    assert!(store.bad("delete tier default", "").contains("built in"));
}

#[test]
fn objects_are_deleted_by_name_or_by_their_files() {
    let store = Store::with(&format!("{POLICY}---\n{POOL}"));
    let errors = store.bad("delete np other", "");
    assert!(errors.contains("default/other does not exist"), "{errors}");
    store.good("delete np other --skip-not-exists", "");
    assert!(store.bad("delete np", "").contains("name the objects"));
    store.good("delete -f -", POOL);
    store.good("delete networkpolicy/web", "");
    assert_eq!(store.files(), [] as [&str; 0]);
}

#[test]
fn of_several_objects_the_good_ones_are_done_and_each_failure_is_told() {
    let store = Store::with(POOL);
    let errors = store.bad("delete ippool pool first second", "");
    assert!(errors.contains("1 done, 2 failed"), "{errors}");
    assert!(errors.contains("first does not exist") && errors.contains("second"), "{errors}");
    assert_eq!(store.json("get ippools")["items"], json!([]));
}

#[test]
fn bad_documents_change_nothing_and_are_told_by_file_line_object_and_field() {
    let store = Store::empty();
    let bad = format!(
        "{POOL}---\napiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {{name: t}}\nspec:\n  order: first\n"
    );
    let file = store.dir.path().join("in.txt");
    std::fs::write(&file, bad).unwrap();
    let errors = store.bad(&format!("apply -f {}", file.display()), "");
    assert!(errors.contains("in.txt:10:3: Tier t: spec.order: "), "{errors}");
    assert!(errors.contains("nothing was changed"), "{errors}");
    assert_eq!(store.json("get ippools")["items"], json!([]));
}

#[test]
fn folders_are_applied_and_those_in_them_on_demand() {
    let (store, given) = (Store::empty(), Store::with(POOL));
    let inner = given.dir.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(inner.join("policy.json"), serde_json::to_string(&json!({
        "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy", "metadata": {"name": "g"},
    })).unwrap()).unwrap();
    let folder = given.dir.path().display();
    store.good(&format!("apply -f {folder}"), "");
    assert_eq!(store.json("get gnp")["items"], json!([]));
    store.good(&format!("apply -R -f {folder}"), "");
    assert_eq!(store.good("get gnp -o name", ""), "globalnetworkpolicy/g\n");
    let found = store.good(&format!("get -R -f {folder} -o name"), "");
    assert_eq!(found, "ippool/pool\nglobalnetworkpolicy/g\n");
}

#[test]
fn without_a_datastore_the_option_is_named() {
    let output = common::margayctl(&["get", "nodes"], "");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && errors.contains("--datastore"), "{errors}");
    let output = common::margayctl(&["--datastore", "dir:/nowhere/at/all", "get", "nodes"], "");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && errors.contains("/nowhere/at/all"), "{errors}");
}

#[test]
fn no_command_is_offered_that_does_not_exist() {
    let help = String::from_utf8(common::margayctl(&["--help"], "").stdout).unwrap();
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    for line in commands.take_while(|line| !line.is_empty()) {
        let command = line.split_whitespace().next().unwrap();
        let output = common::margayctl(&["help", command], "");
        assert!(output.status.success() && output.stdout.len() > 80, "{command}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = common::margayctl(&["completion", shell], "").stdout;
        assert!(String::from_utf8(script).unwrap().contains("simulate"), "{shell}");
    }
}
