//! A made-up cluster as YAML: [`write`], [`write_policies`]. Its objects are those of [`Scale`], written as people write
//! manifests, a document each, or as `kubectl get -o yaml` prints them, in one list with everything that a cluster adds.

use std::{
    fmt::Write as _,
    fs,
    io::{self, BufWriter, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use policy_compiler::{
    generate::Scale,
    model::{
        Event, Labels, Namespace, NamespaceMatch, Node, Peer, Pod, Policy, PortMatch, Requirement, Rule, Selector,
    },
};

/// How objects are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// A document each.
    Written,
    /// A list of them, with all that the API server and the kubelet add.
    Printed,
}

/// Writes a cluster. The first `changed` namespaces lack the policies that open them to all pods' port `http`.
pub(crate) fn write(path: &Path, scale: &Scale, style: Style, changed: u32) -> Result<()> {
    let mut file = BufWriter::new(fs::File::create(path).with_context(|| path.display().to_string())?);
    if style == Style::Printed {
        file.write_all(b"apiVersion: v1\nitems:\n")?;
    }
    let opens_all = |number: &u32| number / scale.namespaces % 4 == 2 && number % scale.namespaces < changed;
    let left_out: Vec<_> = (0..scale.policies).filter(opens_all).map(|number| scale.policy(number).name).collect();
    for event in scale.events() {
        let text = match event {
            Event::PutNamespace(namespace) => self::namespace(&namespace),
            Event::PutNode(node) => self::node(&node),
            Event::PutPod(pod) => self::pod(&pod, style),
            Event::PutPolicy(policy) if !left_out.contains(&policy.name) => self::policy(&policy),
            // the question is about pods and policies
            _ => continue,
        };
        put(&mut file, style, &text)?;
    }
    if style == Style::Printed {
        file.write_all(b"kind: List\nmetadata:\n  resourceVersion: \"\"\n")?;
    }
    file.flush().with_context(|| path.display().to_string())
}

/// Writes the policies of a cluster alone, as one list.
pub(crate) fn write_policies(path: &Path, scale: &Scale) -> Result<()> {
    let mut file = BufWriter::new(fs::File::create(path).with_context(|| path.display().to_string())?);
    file.write_all(b"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicyList\nitems:\n")?;
    for number in 0..scale.policies {
        put(&mut file, Style::Printed, &policy(&scale.policy(number)))?;
    }
    file.flush().with_context(|| path.display().to_string())
}

fn put(file: &mut impl io::Write, style: Style, text: &str) -> io::Result<()> {
    if style == Style::Written {
        file.write_all(b"---\n")?;
        return file.write_all(text.as_bytes());
    }
    for (index, line) in text.lines().enumerate() {
        writeln!(file, "{} {line}", if index == 0 { "-" } else { " " })?;
    }
    Ok(())
}

fn namespace(namespace: &Namespace) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n{}  name: {}\n",
        labels("  ", &namespace.labels),
        namespace.name
    )
}

fn node(node: &Node) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata:\n  name: {}\nstatus:\n  addresses:\n  - address: {}\n    type: InternalIP\n",
        node.name, node.addresses[0]
    )
}

fn labels(indent: &str, labels: &Labels) -> String {
    let mut text = format!("{indent}labels:\n");
    for (key, value) in labels {
        // a hash may look like a number
        writeln!(text, "{indent}  {key}: \"{value}\"").expect("writing to a string never fails");
    }
    text
}

/// What the kubelet and the controllers add to every pod.
const ADDED_SPEC: &str = "  dnsPolicy: ClusterFirst
  enableServiceLinks: true
  preemptionPolicy: PreemptLowerPriority
  priority: 0
  restartPolicy: Always
  schedulerName: default-scheduler
  securityContext: {}
  serviceAccount: default
  serviceAccountName: default
  terminationGracePeriodSeconds: 30
  tolerations:
  - effect: NoExecute
    key: node.kubernetes.io/not-ready
    operator: Exists
    tolerationSeconds: 300
  - effect: NoExecute
    key: node.kubernetes.io/unreachable
    operator: Exists
    tolerationSeconds: 300
  volumes:
  - name: kube-api-access-x7k2p
    projected:
      defaultMode: 420
      sources:
      - serviceAccountToken:
          expirationSeconds: 3607
          path: token
      - configMap:
          items:
          - key: ca.crt
            path: ca.crt
          name: kube-root-ca.crt
      - downwardAPI:
          items:
          - fieldRef:
              apiVersion: v1
              fieldPath: metadata.namespace
            path: namespace
";

const ADDED_STATUS: &str = "  conditions:
  - lastProbeTime: null
    lastTransitionTime: \"2026-11-21T10:00:03Z\"
    status: \"True\"
    type: PodReadyToStartContainers
  - lastProbeTime: null
    lastTransitionTime: \"2026-11-21T10:00:01Z\"
    status: \"True\"
    type: Initialized
  - lastProbeTime: null
    lastTransitionTime: \"2026-11-21T10:00:03Z\"
    status: \"True\"
    type: Ready
  - lastProbeTime: null
    lastTransitionTime: \"2026-11-21T10:00:01Z\"
    status: \"True\"
    type: PodScheduled
  containerStatuses:
  - containerID: containerd://0f5f3c4b7a9e2100f5f3c4b7a9e2100f5f3c4b7a9e2100f5f3c4b7a9e210
    image: registry.example/shop/app:1.4.2
    imageID: registry.example/shop/app@sha256:0f5f3c4b7a9e2100f5f3c4b7a9e2100f5f3c4b7a9e210
    lastState: {}
    name: main
    ready: true
    restartCount: 0
    started: true
    state:
      running:
        startedAt: \"2026-11-21T10:00:02Z\"
";

fn pod(pod: &Pod, style: Style) -> String {
    let printed = style == Style::Printed;
    let mut text = String::from("apiVersion: v1\nkind: Pod\nmetadata:\n");
    if printed {
        text.push_str("  creationTimestamp: \"2026-11-21T10:00:00Z\"\n  generateName: app-\n");
    }
    text.push_str(&labels("  ", &pod.labels));
    let mut line = |line: std::fmt::Arguments<'_>| {
        text.write_fmt(line).expect("writing to a string never fails");
        text.push('\n');
    };
    line(format_args!("  name: {}\n  namespace: {}", pod.name.name, pod.name.namespace));
    let owner = pod.name.name.rsplit_once('-').map_or(&*pod.name.name, |(owner, _)| owner);
    line(format_args!("  ownerReferences:\n  - apiVersion: apps/v1"));
    if printed {
        line(format_args!("    blockOwnerDeletion: true"));
    }
    line(format_args!("    controller: true\n    kind: ReplicaSet\n    name: {owner}\n    uid: {}", pod.uid));
    if printed {
        line(format_args!("  resourceVersion: \"12345678\""));
    }
    line(format_args!("  uid: {}\nspec:\n  containers:\n  - image: registry.example/shop/app:1.4.2", pod.uid));
    if printed {
        line(format_args!("    imagePullPolicy: IfNotPresent"));
    }
    line(format_args!("    name: main\n    ports:"));
    for port in &pod.ports {
        line(format_args!("    - containerPort: {}\n      name: {}", port.number, port.name));
        line(format_args!("      protocol: {}", port.protocol));
    }
    line(format_args!("    resources:\n      requests:\n        cpu: 50m\n        memory: 64Mi"));
    line(format_args!("  nodeName: {}", pod.node.as_deref().unwrap_or_default()));
    if printed {
        text.push_str(ADDED_SPEC);
    }
    text.push_str("status:\n");
    if printed {
        text.push_str(ADDED_STATUS);
    }
    let address = pod.addresses[0];
    write!(text, "  phase: Running\n  podIP: {address}\n  podIPs:\n  - ip: {address}\n")
        .expect("writing to a string never fails");
    text
}

fn policy(policy: &Policy) -> String {
    let name = &policy.name;
    let mut text = format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: {}\n  namespace: {}\nspec:\n  \
         podSelector: {}\n  policyTypes:\n",
        name.name,
        name.namespace,
        selector(&policy.subject.pods)
    );
    for (rules, word) in [(&policy.ingress, "Ingress"), (&policy.egress, "Egress")] {
        if rules.is_some() {
            writeln!(text, "  - {word}").expect("writing to a string never fails");
        }
    }
    for (rules, direction, peers) in [(&policy.ingress, "ingress", "from"), (&policy.egress, "egress", "to")] {
        let Some(rules) = rules else { continue };
        writeln!(text, "  {direction}:").expect("writing to a string never fails");
        for rule in rules {
            text.push_str(&self::rule(rule, peers, policy));
        }
    }
    text
}

fn rule(rule: &Rule, field: &str, policy: &Policy) -> String {
    let mut text = String::from("  -");
    if let Some(peers) = &rule.peers {
        text.push_str(&format!(" {field}:\n"));
        peers.iter().for_each(|peer| text.push_str(&self::peer(peer, policy)));
    }
    if let Some(ports) = &rule.ports {
        text.push_str(if rule.peers.is_some() { "    ports:\n" } else { " ports:\n" });
        for port in ports {
            text.push_str(&match port {
                PortMatch::Named(protocol, name) => format!("    - port: {name}\n      protocol: {protocol}\n"),
                PortMatch::Range { protocol, first, last } if first == last => {
                    format!("    - port: {first}\n      protocol: {protocol}\n")
                }
                PortMatch::Range { protocol, first, last } => {
                    format!("    - endPort: {last}\n      port: {first}\n      protocol: {protocol}\n")
                }
                PortMatch::All(protocol) => format!("    - protocol: {protocol}\n"),
                PortMatch::Nothing => unreachable!("none is made up"),
            });
        }
    }
    text
}

fn peer(peer: &Peer, policy: &Policy) -> String {
    match peer {
        Peer::Block { cidr, except } => {
            let mut text = format!("    - ipBlock:\n        cidr: {cidr}\n");
            if !except.is_empty() {
                text.push_str("        except:\n");
                except.iter().for_each(|except| text.push_str(&format!("        - {except}\n")));
            }
            text
        }
        Peer::Pods(pods) => {
            let namespaces = match &pods.namespaces {
                NamespaceMatch::Name(name) if *name == policy.name.namespace => {
                    return format!("    - podSelector: {}\n", selector(&pods.pods));
                }
                NamespaceMatch::Name(name) => format!("{{matchLabels: {{kubernetes.io/metadata.name: {name}}}}}"),
                NamespaceMatch::Labels(labels) => selector(labels),
            };
            format!("    - namespaceSelector: {namespaces}\n      podSelector: {}\n", selector(&pods.pods))
        }
        Peer::Nobody => unreachable!("none is made up"),
    }
}

fn selector(selector: &Selector) -> String {
    let pair = |requirement: &Requirement| match requirement {
        Requirement::In(key, values) => format!("{key}: {}", values[0]),
        _ => unreachable!("none is made up"),
    };
    let pairs: Vec<_> = selector.requirements.iter().map(pair).collect();
    if pairs.is_empty() { "{}".to_owned() } else { format!("{{matchLabels: {{{}}}}}", pairs.join(", ")) }
}
