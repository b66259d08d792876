/* server/iscsi/keys.tbl.h - every key of RFC 7143, one row each.
 *
 * KEY(symbol, name, type, sender, use, stage, combine, default, low, high, ours, irrelevant,
 *     options, section)
 * type        NUMBER; BOOL (No 0, Yes 1); LIST, its value the index in @options; WORD, text that
 *             the login itself understands; NOTE, text that changes nothing; OLD, obsolete: it
 *             MUST be answered Reject; OTHER, of a method of authentication that we never choose
 * sender      who may say it first: INITIATOR, TARGET, BOTH
 * use         IO every login, LO the login of a leading connection, FFPO full feature phase only,
 *             ALL any time. One connection a session: IO and LO are the same to us
 * stage       where in a login: SECURITY, OPERATIONAL, EITHER
 * combine     MIN, MAX, OR, AND of theirs and ours; FIRST of their list that is an option;
 *             DECLARE: no answer
 * default     holds when nobody says anything. We offer nothing that needs an answer: an
 *             initiator that stays silent gets the RFC's default and is spared a round trip;
 *             all of them name what they want, and are met as far as ours goes
 * irrelevant  DISCOVERY: in a discovery session; NEVER
 */
/* 12: security */
KEY(AUTH_METHOD, "AuthMethod", WORD, BOTH, IO, SECURITY, FIRST, 0, 0, 0, 0, NEVER, "", "12.1")
KEY(KRB_AP_REQ, "KRB_AP_REQ", OTHER, BOTH, IO, SECURITY, DECLARE, 0, 0, 0, 0, NEVER, "", "12.1.1")
KEY(KRB_AP_REP, "KRB_AP_REP", OTHER, BOTH, IO, SECURITY, DECLARE, 0, 0, 0, 0, NEVER, "", "12.1.1")
KEY(SRP_U, "SRP_U", OTHER, BOTH, IO, SECURITY, DECLARE, 0, 0, 0, 0, NEVER, "", "12.1.2")
KEY(SRP_TARGET_AUTH, "TargetAuth", OTHER, BOTH, IO, SECURITY, DECLARE, 0, 0, 0, 0, NEVER, "",
        "12.1.2")
KEY(SRP_GROUP, "SRP_GROUP", OTHER, BOTH, IO, SECURITY, DECLARE, 0, 0, 0, 0, NEVER, "", "12.1.2")
KEY(SRP_N, "SRP_N", OTHER, BOTH, IO, SECURITY, DECLARE, 0, 0, 0, 0, NEVER, "", "12.1.2")
KEY(SRP_g, "SRP_g", OTHER, BOTH, IO, SECURITY, DECLARE, 0, 0, 0, 0, NEVER, "", "12.1.2")
KEY(SRP_s, "SRP_s", OTHER, BOTH, IO, SECURITY, DECLARE, 0, 0, 0, 0, NEVER, "", "12.1.2")
KEY(SRP_A, "SRP_A", OTHER, BOTH, IO, SECURITY, DECLARE, 0, 0, 0, 0, NEVER, "", "12.1.2")
KEY(SRP_B, "SRP_B", OTHER, BOTH, IO, SECURITY, DECLARE, 0, 0, 0, 0, NEVER, "", "12.1.2")
KEY(SRP_M, "SRP_M", OTHER, BOTH, IO, SECURITY, DECLARE, 0, 0, 0, 0, NEVER, "", "12.1.2")
KEY(SRP_HM, "SRP_HM", OTHER, BOTH, IO, SECURITY, DECLARE, 0, 0, 0, 0, NEVER, "", "12.1.2")
KEY(CHAP_A, "CHAP_A", WORD, BOTH, IO, SECURITY, DECLARE, 0, 0, 0, 0, NEVER, "", "12.1.3")
KEY(CHAP_I, "CHAP_I", WORD, BOTH, IO, SECURITY, DECLARE, 0, 0, 0, 0, NEVER, "", "12.1.3")
KEY(CHAP_C, "CHAP_C", WORD, BOTH, IO, SECURITY, DECLARE, 0, 0, 0, 0, NEVER, "", "12.1.3")
KEY(CHAP_N, "CHAP_N", WORD, BOTH, IO, SECURITY, DECLARE, 0, 0, 0, 0, NEVER, "", "12.1.3")
KEY(CHAP_R, "CHAP_R", WORD, BOTH, IO, SECURITY, DECLARE, 0, 0, 0, 0, NEVER, "", "12.1.3")

/* 13: who, and what for */
KEY(SEND_TARGETS, "SendTargets", WORD, INITIATOR, FFPO, EITHER, DECLARE, 0, 0, 0, 0, NEVER, "",
        "13.3")
KEY(TARGET_NAME, "TargetName", WORD, BOTH, IO, EITHER, DECLARE, 0, 0, 0, 0, NEVER, "", "13.4")
KEY(INITIATOR_NAME, "InitiatorName", WORD, INITIATOR, IO, EITHER, DECLARE, 0, 0, 0, 0, NEVER, "",
        "13.5")
KEY(TARGET_ALIAS, "TargetAlias", NOTE, TARGET, ALL, EITHER, DECLARE, 0, 0, 0, 0, NEVER, "",
        "13.6")
KEY(INITIATOR_ALIAS, "InitiatorAlias", NOTE, INITIATOR, ALL, EITHER, DECLARE, 0, 0, 0, 0, NEVER,
        "", "13.7")
KEY(TARGET_ADDRESS, "TargetAddress", NOTE, TARGET, ALL, EITHER, DECLARE, 0, 0, 0, 0, NEVER, "",
        "13.8")
KEY(PORTAL_GROUP, "TargetPortalGroupTag", NOTE, TARGET, IO, EITHER, DECLARE, 0, 0, 65535, 0,
        NEVER, "", "13.9")
KEY(SESSION_TYPE, "SessionType", WORD, INITIATOR, LO, EITHER, DECLARE, 0, 0, 0, 0, NEVER, "",
        "13.21")

/* 13: how */
KEY(HEADER_DIGEST, "HeaderDigest", LIST, BOTH, IO, OPERATIONAL, FIRST, 0, 0, 1, 0, NEVER,
        "None,CRC32C", "13.1")
KEY(DATA_DIGEST, "DataDigest", LIST, BOTH, IO, OPERATIONAL, FIRST, 0, 0, 1, 0, NEVER,
        "None,CRC32C", "13.1")
KEY(MAX_CONNECTIONS, "MaxConnections", NUMBER, BOTH, LO, OPERATIONAL, MIN, 1, 1, 65535, 1,
        DISCOVERY, "", "13.2")
KEY(INITIAL_R2T, "InitialR2T", BOOL, BOTH, LO, OPERATIONAL, OR, 1, 0, 1, 0, DISCOVERY, "",
        "13.10")
KEY(IMMEDIATE_DATA, "ImmediateData", BOOL, BOTH, LO, OPERATIONAL, AND, 1, 0, 1, 1, DISCOVERY, "",
        "13.11")
KEY(MAX_RECEIVE, "MaxRecvDataSegmentLength", NUMBER, BOTH, ALL, EITHER, DECLARE, 8192, 512,
        16777215, 262144, NEVER, "", "13.12")
KEY(MAX_BURST, "MaxBurstLength", NUMBER, BOTH, LO, OPERATIONAL, MIN, 262144, 512, 16777215,
        262144, DISCOVERY, "", "13.13")
KEY(FIRST_BURST, "FirstBurstLength", NUMBER, BOTH, LO, OPERATIONAL, MIN, 65536, 512, 16777215,
        262144, DISCOVERY, "", "13.14")
/* No task outlives its connection (ErrorRecoveryLevel 0): nothing to wait for, nothing kept. */
KEY(TIME2WAIT, "DefaultTime2Wait", NUMBER, BOTH, LO, OPERATIONAL, MAX, 2, 0, 3600, 0, NEVER, "",
        "13.15")
KEY(TIME2RETAIN, "DefaultTime2Retain", NUMBER, BOTH, LO, OPERATIONAL, MIN, 20, 0, 3600, 0, NEVER,
        "", "13.16")
KEY(MAX_R2T, "MaxOutstandingR2T", NUMBER, BOTH, LO, OPERATIONAL, MIN, 1, 1, 65535, 8, DISCOVERY,
        "", "13.17")
KEY(PDU_IN_ORDER, "DataPDUInOrder", BOOL, BOTH, LO, OPERATIONAL, OR, 1, 0, 1, 1, DISCOVERY, "",
        "13.18")
KEY(SEQUENCE_IN_ORDER, "DataSequenceInOrder", BOOL, BOTH, LO, OPERATIONAL, OR, 1, 0, 1, 1,
        DISCOVERY, "", "13.19")
KEY(RECOVERY_LEVEL, "ErrorRecoveryLevel", NUMBER, BOTH, LO, OPERATIONAL, MIN, 0, 0, 2, 0, NEVER,
        "", "13.20")
KEY(TASK_REPORTING, "TaskReporting", LIST, BOTH, LO, OPERATIONAL, FIRST, 0, 0, 0, 0, DISCOVERY,
        "RFC3720", "13.23")
KEY(PROTOCOL_LEVEL, "iSCSIProtocolLevel", NUMBER, BOTH, LO, OPERATIONAL, MIN, 1, 0, 31, 1,
        DISCOVERY, "", "13.24")
/* The old initiators that still send these offer No and expect No: the answer that 13.25 allows
   beside Reject. */
KEY(IF_MARKER, "IFMarker", BOOL, BOTH, IO, OPERATIONAL, AND, 0, 0, 1, 0, NEVER, "", "13.25")
KEY(OF_MARKER, "OFMarker", BOOL, BOTH, IO, OPERATIONAL, AND, 0, 0, 1, 0, NEVER, "", "13.25")
KEY(IF_MARK_INT, "IFMarkInt", OLD, BOTH, IO, OPERATIONAL, MIN, 0, 0, 0, 0, NEVER, "", "13.25")
KEY(OF_MARK_INT, "OFMarkInt", OLD, BOTH, IO, OPERATIONAL, MIN, 0, 0, 0, 0, NEVER, "", "13.25")
KEY(NODE_ARCHITECTURE, "X#NodeArchitecture", NOTE, BOTH, LO, EITHER, DECLARE, 0, 0, 0, 0, NEVER,
        "", "13.26")
