{{- /*
What another chart includes, with this one as a dependency:

  metadata:
    labels:
      {{- include "forbear.podLabels" .Subcharts.forbear | nindent 6 }}
  spec:
    initContainers:
      {{- include "forbear.sidecar" .Subcharts.forbear | nindent 6 }}
    volumes:
      {{- include "forbear.volumes" .Subcharts.forbear | nindent 6 }}

It says the same as deploy/kubernetes/pod/pod.yaml; a test compares them.
*/ -}}

{{- define "forbear.name" -}}
{{- if contains "forbear" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-forbear{{ end }}
{{- end }}

{{- define "forbear.labels" -}}
app.kubernetes.io/name: forbear
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "forbear.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "forbear.podLabels" -}}
forbear: sidecar
{{- end }}

{{- define "forbear.sidecar" -}}
- name: forbear
  image: {{ include "forbear.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  # As an init container: a native sidecar, which starts first and ends last.
  restartPolicy: Always
  ports:
    - name: forbear-metrics
      containerPort: 9464
  startupProbe:
    exec:
      command: [/usr/local/bin/forbear, health, --ready]
    periodSeconds: 1
    timeoutSeconds: 3
    failureThreshold: 60
  readinessProbe:
    exec:
      command: [/usr/local/bin/forbear, health, --ready]
    periodSeconds: 10
    timeoutSeconds: 3
  livenessProbe:
    exec:
      command: [/usr/local/bin/forbear, health]
    periodSeconds: 10
    timeoutSeconds: 3
  resources:
    {{- toYaml .Values.resources | nindent 4 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities:
      drop: [ALL]
    seccompProfile:
      type: RuntimeDefault
  volumeMounts:
    - name: forbear-config
      mountPath: /etc/forbear
      readOnly: true
    - name: forbear-secrets
      mountPath: /run/secrets/forbear
      readOnly: true
    - name: forbear-state
      mountPath: /var/lib/forbear
{{- end }}

{{- define "forbear.volumes" -}}
- name: forbear-config
  configMap:
    name: {{ include "forbear.name" . }}
- name: forbear-secrets
  secret:
    secretName: {{ .Values.secretName | default (include "forbear.name" .) }}
    optional: true
- name: forbear-state
  emptyDir:
    sizeLimit: {{ .Values.stateSizeLimit }}
{{- end }}
