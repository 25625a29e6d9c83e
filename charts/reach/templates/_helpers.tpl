{{- define "reach.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Names get endings of up to 12 characters, and Services have at most 63. */}}
{{- define "reach.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "reach.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "reach.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What never changes in the life of a release: selectors are made of it. */}}
{{- define "reach.identity" -}}
app.kubernetes.io/name: {{ include "reach.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "reach.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "reach.identity" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* The pods of the webhook, not those of hooks. */}}
{{- define "reach.selector" -}}
{{ include "reach.identity" . }}
app.kubernetes.io/component: webhook
{{- end -}}

{{- define "reach.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "reach.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "reach.fullname" .) -}}
{{- end -}}

{{/* The Secret with the CA, in mode selfManaged; the Lease has the same name. */}}
{{- define "reach.caSecret" -}}
{{- .Values.certificates.selfManaged.secretName | default (printf "%s-ca" (include "reach.fullname" .)) -}}
{{- end -}}

{{/* The Lease of the replica that writes the status of presets. */}}
{{- define "reach.statusLease" -}}
{{- printf "%s-status" (include "reach.fullname" .) -}}
{{- end -}}

{{/* The Secret with the serving certificate, in the other modes. */}}
{{- define "reach.tlsSecret" -}}
{{- if eq .Values.certificates.mode "secret" -}}
{{- required "certificates.secret.name is needed with certificates.mode secret" .Values.certificates.secret.name -}}
{{- else -}}
{{- .Values.certificates.certManager.secretName | default (printf "%s-tls" (include "reach.fullname" .)) -}}
{{- end -}}
{{- end -}}

{{/* Namespaces that are never touched, as JSON. Whatever the values say, the first four are among them. */}}
{{- define "reach.excludedNamespaces" -}}
{{- $names := list "kube-system" "kube-public" "kube-node-lease" .Release.Namespace -}}
{{- if eq .Values.certificates.mode "certManager" -}}
{{- $names = append $names .Values.certificates.certManager.namespace -}}
{{- end -}}
{{- concat $names .Values.namespaces.exclude | uniq | toJson -}}
{{- end -}}

{{/* The presets of the values, from name to spec, as JSON: the short form and the others. */}}
{{- define "reach.presets" -}}
{{- $presets := deepCopy .Values.presets -}}
{{- with .Values.proxy -}}
{{- if or .http .https -}}
{{- $env := list -}}
{{- with .http }}{{ $env = append $env (dict "name" "http_proxy" "value" . "mergeStrategy" "Replace") }}{{ end -}}
{{- with .https | default .http }}{{ $env = append $env (dict "name" "https_proxy" "value" . "mergeStrategy" "Replace") }}{{ end -}}
{{- with concat .noProxyDefaults .noProxy | uniq }}{{ $env = append $env (dict "name" "no_proxy" "value" (join "," .) "mergeStrategy" "Merge") }}{{ end -}}
{{- $spec := dict "env" $env -}}
{{- with .noProxyFrom }}{{ $spec = set $spec "noProxyFrom" . }}{{ end -}}
{{- with .excludeContainers }}{{ $spec = set $spec "excludeContainers" . }}{{ end -}}
{{- $presets = set $presets .presetName $spec -}}
{{- end -}}
{{- end -}}
{{- toJson $presets -}}
{{- end -}}

{{/* Pod Security level "restricted", and more. */}}
{{- define "reach.podSecurityContext" -}}
runAsNonRoot: true
{{- with .Values.runAsUser }}
runAsUser: {{ int64 . }}
runAsGroup: {{ int64 . }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "reach.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* The token is mounted by hand: nothing that runs as this ServiceAccount gets it unasked, and it is short-lived. */}}
{{- define "reach.tokenVolume" -}}
name: token
projected:
  sources:
  - serviceAccountToken:
      path: token
      expirationSeconds: 3607
  - configMap:
      name: kube-root-ca.crt
      items:
      - key: ca.crt
        path: ca.crt
  - downwardAPI:
      items:
      - path: namespace
        fieldRef:
          apiVersion: v1
          fieldPath: metadata.namespace
{{- end -}}

{{- define "reach.tokenMount" -}}
name: token
mountPath: /var/run/secrets/kubernetes.io/serviceaccount
readOnly: true
{{- end -}}

{{/* What the pods of hooks share. They run for seconds. */}}
{{- define "reach.hookPod" -}}
restartPolicy: Never
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- include "reach.podSecurityContext" . | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
- {{- include "reach.tokenVolume" . | nindent 2 }}
{{- end -}}

{{- define "reach.hookContainer" -}}
image: {{ include "reach.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- include "reach.containerSecurityContext" . | nindent 2 }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
- {{- include "reach.tokenMount" . | nindent 2 }}
{{- end -}}

{{/* The schema says the same; this holds when somebody skips it. */}}
{{- define "reach.check" -}}
{{- if and (eq .Values.failurePolicy "Fail") (or (lt (int .Values.replicas) 2) (not .Values.podDisruptionBudget.enabled)) -}}
{{- fail "failurePolicy Fail needs replicas of 2 or more and podDisruptionBudget.enabled: otherwise one lost pod stops the creation of all others" -}}
{{- end -}}
{{- if and (or .Values.proxy.http .Values.proxy.https) (hasKey .Values.presets .Values.proxy.presetName) -}}
{{- fail (printf "presets.%s and proxy make the same ClusterPodPreset: choose another proxy.presetName" .Values.proxy.presetName) -}}
{{- end -}}
{{- $from := .Values.noProxyFrom -}}
{{- range $name, $spec := include "reach.presets" . | fromJson -}}
{{- range $spec.noProxyFrom -}}
{{- if and (has . (list "Services" "AllServices")) (not $from.services) -}}
{{- fail (printf "noProxyFrom.services is needed: preset %s has noProxyFrom %s" $name .) -}}
{{- end -}}
{{- if and (eq . "ClusterNetwork") (not $from.clusterNetwork) (not $from.networks) -}}
{{- fail (printf "noProxyFrom.clusterNetwork (or noProxyFrom.networks) is needed: preset %s has noProxyFrom %s" $name .) -}}
{{- end -}}
{{- if and (eq . "Nodes") (not $from.nodes) -}}
{{- fail (printf "noProxyFrom.nodes is needed: preset %s has noProxyFrom %s" $name .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if eq (int .Values.webhook.port) (int .Values.admin.port) -}}
{{- fail "webhook.port and admin.port are the same: choose two" -}}
{{- end -}}
{{- end -}}
