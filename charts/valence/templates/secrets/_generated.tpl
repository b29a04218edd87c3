{{/*
A trial's Secrets are made once and never again: each is a hook that is rendered only where its
Secret is missing. So it belongs to no revision: an upgrade does not touch it, a rollback cannot
bring back keys that were rotated since, and uninstalling leaves it, as it leaves the volumes.
Where `lookup` sees no cluster (`helm template`, GitOps) the values are new in each render: give
existing Secrets there, or set trial.generateSecrets=false and make them as k8s/install does.
*/}}

{{- define "valence.generates" -}}
{{- $name := index . 1 -}}
{{- with index . 0 -}}
{{- if and .Values.trial.enabled .Values.trial.generateSecrets (not (lookup "v1" "Secret" .Release.Namespace $name)) }}true{{ end -}}
{{- end -}}
{{- end }}

{{- define "valence.generatedMetadata" -}}
labels: {{- include "valence.commonLabels" . | nindent 2 }}
annotations:
  helm.sh/hook: pre-install,pre-upgrade
  helm.sh/hook-weight: "-5"
  helm.sh/resource-policy: keep
{{- end }}

{{/* 192 random bits in letters that a URL takes. */}}
{{- define "valence.password" -}}
{{ randBytes 24 | replace "+" "-" | replace "/" "_" }}
{{- end }}
