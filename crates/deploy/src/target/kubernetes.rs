//! Plain manifests of Kubernetes with a kustomization: a server that is rolled over without a refused request, that cannot do more
//! than it needs to, and that stops when it is told.
//!
//! Sources: the API of Kubernetes 1.33 to 1.37; Gateway API Inference Extension 1.6 (InferencePool); KEDA 2 (ScaledObject); the
//! Prometheus operator (ServiceMonitor).

use crate::{
    Bundle, DeployOptions, Memory, Place, Rendered,
    text::{head, quoted, serve_flags, unfit},
};
use narthex_base::Result;

/// The first minor version in which a pod can mount an image (by its gate; by default from 1.35 on).
const IMAGE_VOLUME_FROM: u32 = 33;
/// What a container may do: nothing but compute.
const RIGHTS: &str = "          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop:
                - ALL
";
/// Seconds between the moment that a pod is no longer sent requests and the signal: as long as that takes to reach everybody.
const PRE_STOP_S: u32 = 10;

pub(super) fn render(bundle: &Bundle, options: &DeployOptions) -> Result<Vec<Rendered>> {
    let mut files = vec![
        ("deployment.yaml", deployment(bundle, options)?),
        ("service.yaml", service(options)),
        ("serviceaccount.yaml", service_account(options)),
        ("poddisruptionbudget.yaml", disruption_budget(options)),
        ("networkpolicy.yaml", network_policy(options)),
    ];
    if let Some(url) = &options.autoscale_prometheus {
        files.push(("scaledobject.yaml", scaled_object(bundle, options, url)?));
    }
    if options.service_monitor {
        files.push(("servicemonitor.yaml", service_monitor(options)));
    }
    if let Some(picker) = &options.endpoint_picker {
        files.push(("inferencepool.yaml", inference_pool(options, picker)?));
    }
    let resources: String = files.iter().map(|(path, _)| format!("  - {path}\n")).collect();
    let kustomization = format!(
        "# kubectl diff -k . shows what would change, kubectl apply -k . changes it.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
{resources}"
    );
    files.push(("kustomization.yaml", kustomization));
    Ok(files.into_iter().map(|(path, text)| Rendered { path: path.into(), text }).collect())
}

fn labels(options: &DeployOptions, indent: usize) -> String {
    let space = " ".repeat(indent);
    format!("{space}app.kubernetes.io/name: narthex\n{space}app.kubernetes.io/instance: {}\n", options.name)
}

fn deployment(bundle: &Bundle, options: &DeployOptions) -> Result<String> {
    let DeployOptions { name, replicas, cores, shutdown_s, .. } = options;
    let image = quoted(options.image()?);
    let memory = Memory::of(bundle, options);
    let model = Model::new(options)?;
    let mut words = vec!["serve".to_string(), model.path.clone(), "--host".into(), "0.0.0.0".into()];
    words.extend(["--port".into(), options.port.to_string()]);
    words.extend(serve_flags(bundle, options));
    // The wait before the signal does what the drain would do.
    words.extend(["--drain-time".into(), "0".into(), "--shutdown-timeout".into(), shutdown_s.to_string()]);
    let (mut key_mount, mut key_volume) = (String::new(), String::new());
    if options.keys {
        words.extend(["--api-key-file".into(), "/etc/narthex/keys/keys".into()]);
        key_mount =
            "            - name: keys\n              mountPath: /etc/narthex/keys\n              readOnly: true\n"
                .into();
        key_volume = format!(
            "        # Keys of clients, one a line: kubectl create secret generic {name}-keys --from-file=keys=FILE
        - name: keys
          secret:
            secretName: {name}-keys
            defaultMode: 0444
"
        );
    }
    let args: String = words.iter().map(|word| format!("            - {}\n", quoted(word))).collect();
    let (head, labels, pod_labels) =
        (head(bundle, options, "A server of the model"), labels(options, 4), labels(options, 8));
    let match_labels = self::labels(options, 6);
    // A weight of a gigabyte may come from a slow disk at 50 MB/s; loading is never given less than two minutes.
    let loading = 24 + bundle.weights_bytes.div_ceil(1 << 30) * 4;
    let grace = PRE_STOP_S + shutdown_s + 15;
    let licenses = quoted(&bundle.licenses.join(" AND "));
    let digest = &bundle.digest;
    let (pull_secrets, init, model_mount, model_volume) = (model.pull_secrets, model.init, model.mount, model.volumes);
    let (mebibytes, port) = (memory.mebibytes(), options.port);
    Ok(format!(
        "{head}apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
  labels:
{labels}spec:
  replicas: {replicas}
  selector:
    matchLabels:
{match_labels}  strategy:
    type: RollingUpdate
    # A new pod is ready before an old one goes: never fewer than there are now.
    rollingUpdate:
      maxUnavailable: 0
      maxSurge: 1
  template:
    metadata:
      labels:
{pod_labels}      annotations:
        narthex.dev/digest: {digest}
        narthex.dev/licenses: {licenses}
        # For Prometheus without its operator.
        prometheus.io/scrape: \"true\"
        prometheus.io/port: \"{port}\"
        prometheus.io/path: /metrics
    spec:
      serviceAccountName: {name}
      # It asks the cluster for nothing.
      automountServiceAccountToken: false
      enableServiceLinks: false
      # More than the wait before the signal and the time that answers under way get.
      terminationGracePeriodSeconds: {grace}
{pull_secrets}      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        fsGroup: 65532
        seccompProfile:
          type: RuntimeDefault
      # Replicas stand on different nodes where there are several.
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
{spread}{init}      containers:
        - name: narthex
          image: {image}
          args:
{args}          ports:
            - name: http
              containerPort: {port}
          env:
            - name: HOME
              value: /tmp
          resources:
            requests:
              cpu: \"{cores}\"
              memory: {mebibytes}Mi
            # No limit of cores: it would only stop threads in the middle of a step.
            limits:
              memory: {mebibytes}Mi
{RIGHTS}          # Loading takes as long as reading the weights; until then nothing else is asked.
          startupProbe:
            httpGet:
              path: /ready
              port: http
            periodSeconds: 5
            failureThreshold: {loading}
          # 503 from the moment that it is told to stop.
          readinessProbe:
            httpGet:
              path: /ready
              port: http
            periodSeconds: 5
            timeoutSeconds: 5
            failureThreshold: 2
          # Whoever answers is alive, whether busy or stopping.
          livenessProbe:
            httpGet:
              path: /health
              port: http
            periodSeconds: 10
            timeoutSeconds: 10
            failureThreshold: 6
          lifecycle:
            # Until everybody knows that this pod goes; by Kubernetes itself, since the image has no shell.
            preStop:
              sleep:
                seconds: {PRE_STOP_S}
          volumeMounts:
{model_mount}{key_mount}            - name: tmp
              mountPath: /tmp
      volumes:
{model_volume}{key_volume}        - name: tmp
          emptyDir:
            sizeLimit: 256Mi
",
        spread = self::labels(options, 14),
    ))
}

/// How a pod comes to the model.
struct Model {
    /// Where it is served from.
    path: String,
    init: String,
    mount: String,
    volumes: String,
    pull_secrets: String,
}

impl Model {
    fn new(options: &DeployOptions) -> Result<Self> {
        let Place::Registry(reference) = &options.place else {
            return Err(unfit(
                "a pod takes its model from a registry, not from a folder",
                "push it first, with `--image` where pods are to mount it: `narthex push REF oci://REGISTRY/NAME:TAG --image`",
            ));
        };
        let mount = |more: &str| {
            format!("            - name: model\n              mountPath: /models\n{more}              readOnly: true\n")
        };
        if options.kubernetes_minor >= IMAGE_VOLUME_FROM {
            let secrets = options.registry_secret.as_ref();
            return Ok(Self {
                path: "/models".into(),
                init: String::new(),
                mount: mount("              # What the image has there is the model, and nothing else of it is seen.\n              subPath: models\n"),
                volumes: format!(
                    "        # The image that `narthex push --image` made, mounted as it is: nothing is copied, and nodes keep it.
        - name: model
          image:
            reference: {}
            pullPolicy: IfNotPresent
",
                    quoted(reference)
                ),
                pull_secrets: secrets.map(|name| format!("      imagePullSecrets:\n        - name: {name}\n")).unwrap_or_default(),
            });
        }
        let image = quoted(options.image()?);
        let (mut env, mut secret_mount, mut secret_volume, mut pull_secrets) =
            (String::new(), String::new(), String::new(), String::new());
        if let Some(secret) = &options.registry_secret {
            env =
                "            - name: REGISTRY_AUTH_FILE\n              value: /etc/registry/.dockerconfigjson\n".into();
            secret_mount =
                "            - name: registry\n              mountPath: /etc/registry\n              readOnly: true\n"
                    .into();
            secret_volume = format!(
                "        - name: registry\n          secret:\n            secretName: {secret}\n            defaultMode: 0444\n"
            );
            pull_secrets = format!("      imagePullSecrets:\n        - name: {secret}\n");
        }
        let fetch = quoted(&format!("oci://{reference}"));
        Ok(Self {
            path: "/models/files".into(),
            init: format!(
                "      # The model comes into a folder of the pod before the server starts. From 1.{IMAGE_VOLUME_FROM} on it can be mounted instead.
      initContainers:
        - name: pull
          image: {image}
          args:
            - pull
            - {fetch}
            - --to
            - /models/files
          env:
            - name: HOME
              value: /models/cache
{env}          resources:
            requests:
              cpu: \"1\"
              memory: 256Mi
            limits:
              memory: 512Mi
{RIGHTS}          volumeMounts:
            - name: model
              mountPath: /models
{secret_mount}"
            ),
            mount: mount(""),
            volumes: format!("        - name: model\n          emptyDir: {{}}\n{secret_volume}"),
            pull_secrets,
        })
    }
}

fn service(options: &DeployOptions) -> String {
    format!(
        "# One address for all replicas.
apiVersion: v1
kind: Service
metadata:
  name: {name}
  labels:
{labels}spec:
  selector:
{selector}  ports:
    - name: http
      port: 80
      targetPort: http
      # Proxies that look at it know what is spoken.
      appProtocol: http
",
        name = options.name,
        labels = labels(options, 4),
        selector = labels(options, 4),
    )
}

fn service_account(options: &DeployOptions) -> String {
    format!(
        "# Who the pods are: nobody with any rights.
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {}
  labels:
{}automountServiceAccountToken: false
",
        options.name,
        labels(options, 4)
    )
}

fn disruption_budget(options: &DeployOptions) -> String {
    let (rule, why) = match options.replicas {
        // With one replica, a node could otherwise never be emptied.
        1 => ("maxUnavailable: 1", "There is one replica: a node may be emptied all the same."),
        _ => ("minAvailable: 1", "However nodes are emptied, somebody answers."),
    };
    format!(
        "# {why}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {}
  labels:
{}spec:
  {rule}
  # A pod that is not ready may always go.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
{}",
        options.name,
        labels(options, 4),
        labels(options, 6)
    )
}

fn network_policy(options: &DeployOptions) -> String {
    let egress = match options.kubernetes_minor >= IMAGE_VOLUME_FROM {
        true => "  # A server asks nobody for anything: nodes pull the images.\n  egress: []\n".to_string(),
        false => "  # The model comes from a registry: its name is looked up, and it is asked over TLS.
  egress:
    - ports:
        - protocol: UDP
          port: 53
        - protocol: TCP
          port: 53
    - ports:
        - protocol: TCP
          port: 443
"
        .to_string(),
    };
    format!(
        "# Who may reach the pods, and whom they may reach.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {name}
  labels:
{labels}spec:
  podSelector:
    matchLabels:
{selector}  policyTypes:
    - Ingress
    - Egress
  ingress:
    # From everywhere in the cluster, to the port that asks for a key; write `from` to narrow it to a gateway's namespace.
    - ports:
        - protocol: TCP
          port: http
{egress}",
        name = options.name,
        labels = labels(options, 4),
        selector = labels(options, 6),
    )
}

/// KEDA: the number of servers follows the requests that wait, never the use of processors, which is whole whenever one computes.
fn scaled_object(bundle: &Bundle, options: &DeployOptions, url: &str) -> Result<String> {
    if !(url.starts_with("http://") || url.starts_with("https://")) {
        return Err(unfit(
            "`--autoscale-prometheus` takes an address",
            "write it as `http://prometheus.monitoring:9090`",
        ));
    }
    let (name, replicas) = (&options.name, options.replicas);
    Ok(format!(
        "# The number of servers follows the requests that wait; the use of processors says nothing, since one request uses all.
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {name}
  labels:
{labels}spec:
  scaleTargetRef:
    name: {name}
  minReplicaCount: {replicas}
  maxReplicaCount: {most}
  # As long as it took to load the model would be wasted on every short pause.
  cooldownPeriod: 300
  triggers:
    - type: prometheus
      metadata:
        serverAddress: {url}
        query: {query}
        # So many that wait for each server.
        threshold: \"2\"
",
        labels = labels(options, 4),
        most = replicas * 4,
        url = quoted(url),
        query = quoted(&format!("sum(vllm:num_requests_waiting{{model_name={}}})", quoted(&bundle.name))),
    ))
}

fn service_monitor(options: &DeployOptions) -> String {
    format!(
        "# Prometheus' operator asks every replica.
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: {name}
  labels:
{labels}spec:
  selector:
    matchLabels:
{selector}  endpoints:
    - port: http
      path: /metrics
      interval: 15s
",
        name = options.name,
        labels = labels(options, 4),
        selector = labels(options, 6),
    )
}

fn inference_pool(options: &DeployOptions, picker: &str) -> Result<String> {
    let (service, port) = picker.split_once(':').unwrap_or((picker, "9002"));
    let wrong = || unfit("`--endpoint-picker` names a Service, and perhaps its port", "write it as `epp:9002`");
    let port: u16 = port.parse().map_err(|_| wrong())?;
    if service.is_empty() || !service.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
        return Err(wrong());
    }
    Ok(format!(
        "# The replicas as a pool for a gateway (Gateway API Inference Extension): its picker reads their metrics and sends each
# request to the one that has its beginning in its cache, or least to do.
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata:
  name: {name}
  labels:
{labels}spec:
  selector:
    matchLabels:
{selector}  targetPorts:
    - number: {target}
  endpointPickerRef:
    kind: Service
    name: {service}
    port:
      number: {port}
    # If the picker is away, requests go to any of them.
    failureMode: FailOpen
",
        name = options.name,
        labels = labels(options, 4),
        selector = labels(options, 6),
        target = options.port,
    ))
}
