//! Training over ranks by Kubeflow's MPI operator (`kubeflow.org/v2beta1`).

use crate::{
    Bundle, DeployOptions, Rendered,
    text::{quoted, unfit},
};
use narthex_base::Result;

pub(super) fn render(_: &Bundle, options: &DeployOptions) -> Result<Vec<Rendered>> {
    let DeployOptions { name, cores, replicas, .. } = options;
    let image = quoted(options.image()?);
    let project = options.project.as_deref().ok_or_else(|| {
        unfit(
            "a job that trains needs a project",
            "name its folder on the volume that all ranks share: `--project-dir /data/project`",
        )
    })?;
    let volume = project.trim_matches('/').split('/').next().unwrap_or("data");
    let container = |command: &str, requests: &str| {
        format!(
            "            - name: narthex
              image: {image}
{command}              resources:
                requests: {requests}
              securityContext:
                allowPrivilegeEscalation: false
                seccompProfile:
                  type: RuntimeDefault
              volumeMounts:
                - name: projects
                  mountPath: /{volume}
"
        )
    };
    let volumes = format!(
        "          volumes:
            # Project, ledger and checkpoints: a claim that all pods can write to (ReadWriteMany).
            - name: projects
              persistentVolumeClaim:
                claimName: {name}-projects
"
    );
    let launch = format!(
        "              command:
                - mpirun
                # The result has the same bytes whatever the number of ranks.
                - -np
                - \"{replicas}\"
                - narthex
                - run
                - {project}
"
    );
    let launcher = container(&launch, "{cpu: \"1\", memory: 256Mi}");
    let worker = container("", &format!("{{cpu: \"{cores}\", memory: 4Gi}}"));
    let text = format!(
        "# Training over ranks by Kubeflow's MPI operator, written by `narthex deploy`.
# The image needs `narthex`, an MPI (Open MPI or MPICH) and an SSH server, as the operator's own base images have them:
# FROM mpioperator/base, COPY narthex /usr/bin/narthex. Nothing of MPI is needed to build narthex.
apiVersion: kubeflow.org/v2beta1
kind: MPIJob
metadata:
  name: {name}
spec:
  slotsPerWorker: 1
  runPolicy:
    # Pods stay for their logs; a job that failed goes on from its last checkpoint.
    cleanPodPolicy: Running
    backoffLimit: 3
  mpiReplicaSpecs:
    Launcher:
      replicas: 1
      template:
        spec:
          restartPolicy: OnFailure
          containers:
{launcher}{volumes}    Worker:
      replicas: {replicas}
      template:
        spec:
          containers:
{worker}{volumes}"
    );
    Ok(vec![Rendered { path: "mpijob.yaml".into(), text }])
}
