//! KServe (0.15 and later): an InferenceService over a ServingRuntime of ours, with the model as an image (`oci://`, a modelcar).

use crate::{
    Bundle, DeployOptions, Memory, Place, Rendered,
    text::{head, quoted, serve_flags, unfit},
};
use narthex_base::Result;

pub(super) fn render(bundle: &Bundle, options: &DeployOptions) -> Result<Vec<Rendered>> {
    let DeployOptions { name, cores, replicas, shutdown_s, .. } = options;
    let image = quoted(options.image()?);
    let Place::Registry(reference) = &options.place else {
        return Err(unfit(
            "KServe takes the model from a registry, not from a folder",
            "push it first as an image: `narthex push REF oci://REGISTRY/NAME:TAG --image`",
        ));
    };
    let mebibytes = Memory::of(bundle, options).mebibytes();
    let mut words = vec!["serve".to_string(), "/mnt/models".into(), "--host".into(), "0.0.0.0".into()];
    words.extend(["--port".into(), "8080".into()]);
    words.extend(serve_flags(bundle, options));
    words.extend(["--shutdown-timeout".into(), shutdown_s.to_string()]);
    let args: String = words.iter().map(|word| format!("        - {}\n", quoted(word))).collect();
    let grace = options.stop_s();
    let runtime_head = head(bundle, options, "How KServe runs narthex");
    let runtime = format!(
        "{runtime_head}apiVersion: serving.kserve.io/v1alpha1
kind: ServingRuntime
metadata:
  name: {name}-narthex
spec:
  supportedModelFormats:
    - name: narthex
      version: \"1\"
      autoSelect: true
  protocolVersions:
    - openai
  annotations:
    prometheus.kserve.io/port: \"8080\"
    prometheus.kserve.io/path: /metrics
  containers:
    - name: kserve-container
      image: {image}
      args:
{args}      env:
        - name: HOME
          value: /tmp
      ports:
        - name: http1
          containerPort: 8080
          protocol: TCP
      resources:
        requests:
          cpu: \"{cores}\"
          memory: {mebibytes}Mi
        limits:
          memory: {mebibytes}Mi
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop:
            - ALL
        seccompProfile:
          type: RuntimeDefault
      startupProbe:
        httpGet:
          path: /ready
          port: 8080
        periodSeconds: 5
        failureThreshold: 120
      readinessProbe:
        httpGet:
          path: /ready
          port: 8080
        periodSeconds: 5
        failureThreshold: 2
      livenessProbe:
        httpGet:
          path: /health
          port: 8080
        periodSeconds: 10
        failureThreshold: 6
      volumeMounts:
        - name: tmp
          mountPath: /tmp
  volumes:
    - name: tmp
      emptyDir:
        sizeLimit: 256Mi
"
    );
    let service_head = head(bundle, options, "The model as a service of KServe");
    let service = format!(
        "{service_head}apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {name}
  annotations:
    # Plain Deployments: a server that took minutes to load is not put away when nobody asks.
    serving.kserve.io/deploymentMode: RawDeployment
spec:
  predictor:
    minReplicas: {replicas}
    terminationGracePeriodSeconds: {grace}
    model:
      modelFormat:
        name: narthex
      runtime: {name}-narthex
      # The image that `narthex push --image` made, by digest; its files lie below /models, which KServe shows as /mnt/models.
      storageUri: {uri}
",
        uri = quoted(&format!("oci://{reference}")),
    );
    Ok(vec![
        Rendered { path: "servingruntime.yaml".into(), text: runtime },
        Rendered { path: "inferenceservice.yaml".into(), text: service },
    ])
}
