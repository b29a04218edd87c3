{{/* Volumes and their mounts: Secrets, certificate authorities, a model. */}}

{{/* Secrets as files, each named for its setting; and /tmp: (list $ "auth"). */}}
{{- define "valence.secretsVolume" -}}
{{- $root := index . 0 -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ include "valence.databaseSecret" $root }}
          items:
            - key: {{ index $root.Values.database.keys (index . 1) }}
              path: valence_database_url
      - secret:
          name: {{ include "valence.redisSecret" $root }}
          items:
            - key: {{ $root.Values.redis.key }}
              path: valence_redis_url
      {{- if and $root.Values.oidc.enabled (eq (index . 1) "auth") }}
      - secret:
          name: {{ $root.Values.oidc.existingSecret }}
          items:
            - key: {{ $root.Values.oidc.key }}
              path: valence_oidc_client_secret
      {{- end }}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
{{- include "valence.caVolume" $root }}
{{- end }}

{{- define "valence.keyringVolume" -}}
- name: keyring
  secret:
    secretName: {{ include "valence.keyringSecret" . }}
    defaultMode: 0440
    items:
      - key: {{ .Values.jwt.key }}
        path: keyring.json
{{- end }}

{{/* The first superuser's password, as a file. */}}
{{- define "valence.adminVolume" -}}
- name: admin
  secret:
    secretName: {{ include "valence.adminSecret" . }}
    defaultMode: 0440
    items:
      - key: {{ .Values.admin.key }}
        path: password
{{- end }}

{{/* The user's certificate authorities: a file in the pods of Valence, and the variable with its path. */}}
{{- define "valence.caVolume" -}}
{{- with .Values.trustedCA }}
{{- if .existingConfigMap }}
- name: trust
  configMap:
    name: {{ .existingConfigMap }}
    items:
      - {key: {{ .key }}, path: ca.crt}
{{- end }}
{{- end }}
{{- end }}

{{- define "valence.caMount" -}}
{{- if .Values.trustedCA.existingConfigMap }}
- {name: trust, mountPath: /etc/valence/ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "valence.caEnv" -}}
{{- if .Values.trustedCA.existingConfigMap }}
- {name: SSL_CERT_FILE, value: /etc/valence/ca/ca.crt}
{{- end }}
{{- end }}

{{/* The user's model, in place of the one in the image. */}}
{{- define "valence.modelVolume" -}}
{{- with .Values.model.existingClaim }}
- name: model
  persistentVolumeClaim:
    claimName: {{ . }}
    readOnly: true
{{- end }}
{{- end }}

{{- define "valence.modelMount" -}}
{{- if .Values.model.existingClaim }}
- name: model
  mountPath: /models
  readOnly: true
{{- end }}
{{- end }}
